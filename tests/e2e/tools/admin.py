"""What the Python admin SDK's `db` module offers, against the server at the port that is given."""

import os
import sys
import threading

import firebase_admin
from firebase_admin import db, exceptions

PORT = sys.argv[1]
os.environ["FIREBASE_DATABASE_EMULATOR_HOST"] = f"127.0.0.1:{PORT}"
URL = f"http://127.0.0.1:{PORT}/?ns=admin-python"
firebase_admin.initialize_app(options={"databaseURL": URL, "projectId": "demo-x"})


def equal(found, expected):
    assert found == expected, f"{found!r}, not {expected!r}"


ref = db.reference("t")
ref.set({"a": 1, "b": {"c": True}})
equal(ref.get(), {"a": 1, "b": {"c": True}})
equal(ref.get(shallow=True), {"a": True, "b": True})
pushed = ref.child("l").push({"x": 1})
equal((len(pushed.key), pushed.get()), (20, {"x": 1}))
ref.update({"a": 2, "b/c": None, "l": None})
equal(ref.get(), {"a": 2})

value, etag = ref.child("a").get(etag=True)
equal(ref.child("a").set_if_unchanged("other", 5), (False, 2, etag))
done, value, _ = ref.child("a").set_if_unchanged(etag, 5)
equal((done, value), (True, 5))
equal(ref.child("a").transaction(lambda current: current + 1), 6)
changed, value, etag = ref.child("a").get_if_changed("other")
equal((changed, value), (True, 6))
equal(ref.child("a").get_if_changed(etag), (False, None, None))

ref.child("d").set({"x": {"h": 3}, "y": {"h": 1}, "z": {"h": 2}})
equal(list(ref.child("d").order_by_child("h").limit_to_last(2).get()), ["z", "x"])
equal(list(ref.child("d").order_by_key().start_at("y").get()), ["y", "z"])
equal(list(ref.child("d").order_by_child("h").equal_to(1).get()), ["y"])

heard = []
news = threading.Event()


def listener(event):
    heard.append((event.event_type, event.path, event.data))
    news.set()


def wait_for(count):
    while len(heard) < count:
        news.clear()
        assert news.wait(30), heard


stream = ref.child("s").listen(listener)
wait_for(1)
ref.child("s/x").set(1)
wait_for(2)
ref.child("s").update({"y": 2, "z": 3})
wait_for(3)
stream.close()
equal(heard, [("put", "/", None), ("put", "/x", 1), ("patch", "/", {"y": 2, "z": 3})])

ref.delete()
equal(ref.get(), None)
try:
    db.reference("t").child("a").set({"bad.key": 1})
except exceptions.InvalidArgumentError:
    pass
else:
    raise AssertionError("a bad key is refused")
print("all is well")
