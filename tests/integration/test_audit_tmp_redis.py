import redis
def test_r(redis_url): assert redis.Redis.from_url(redis_url).ping()
def test_own(own_redis):
    assert redis.Redis.from_url(own_redis.url).ping(); own_redis.stop(); own_redis.start(); assert redis.Redis.from_url(own_redis.url).ping()
