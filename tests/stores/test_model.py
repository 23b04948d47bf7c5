"""Every store against a naive model: any sequence of operations gives the same answers."""

from __future__ import annotations

from itertools import count

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from fallback_plugin.errors import StoreError
from fallback_plugin.stores.base import Entry
from fallback_plugin.stores.degrading import DegradingStore
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.redis import RedisStore
from fallback_plugin.stores.sqlite import SqliteStore

KEYS = st.sampled_from(["a", "b", "c", "d"])
KINDS = st.sampled_from(["x", "y"])
OWNERS = st.sampled_from(["one", "two"])
TTL = 10.0
_numbers = count()


class Model:
    """What the contract says, said with lists. No tombstones, no indexes, nothing fast."""

    def __init__(self):
        self.names = {}
        self.records = {}
        self.streams = {}
        self.leases = {}
        self.numbers = {}

    def root(self, key):
        while key in self.names:
            key = self.names[key]

        return key

    def write(self, kind, key, value):
        self.numbers[kind, key] = len(self.numbers) and max(self.numbers.values()) + 1
        self.records.pop((kind, key), None)
        if value is not None:
            self.records[kind, key] = value

    def alias(self, old, new):
        old, new = self.root(old), self.root(new)
        if old == new:
            return

        for kind in ("x", "y"):
            ours, theirs = self.records.get((kind, old)), self.records.get((kind, new))
            if ours is not None:
                newer = theirs is not None and self.numbers[kind, new] > self.numbers[kind, old]
                self.write(kind, old, None)
                self.write(kind, new, theirs if newer else ours)

        ours = self.streams.pop(old, [])
        ids = [entry_id for _, entry_id in ours]
        self.streams[new] = ours + [(n, i) for n, i in self.streams.get(new, []) if i is None or i not in ids]
        ours, theirs = self.leases.pop(old, None), self.leases.get(new)
        if ours and (not theirs or ours[1] >= theirs[1]):
            self.leases[new] = ours

        self.names[old] = new

    def append(self, stream, entries):
        rows = self.streams.setdefault(self.root(stream), [])
        sequences = []
        for value, entry_id in entries:
            same = [n for n, (_, known) in enumerate(rows) if entry_id is not None and known == entry_id]
            sequences.append(same[0] if same else len(rows))
            if not same:
                rows.append((value, entry_id))

        return tuple(sequences), len(rows)

    def holder(self, key, now):
        lease = self.leases.get(self.root(key))
        return lease if lease and lease[1] > now else None


class StoreMachine(RuleBasedStateMachine):
    """Steps; the subclass says on which store."""

    revisions = Bundle("revisions")
    leases = Bundle("leases")

    def make(self):
        raise NotImplementedError

    def __init__(self):
        super().__init__()
        self.now = 1_800_000_000.0
        self.model = Model()
        self.seen = dict.fromkeys(("x", "y"), 0)
        self.view = {"x": {}, "y": {}}
        self.generations = {}
        self.portal_context = start_blocking_portal("asyncio")
        self.portal = self.portal_context.__enter__()
        self.store = self.portal.call(self._open)

    async def _open(self):
        store = self.make()
        await store.open()
        return store

    def call(self, method, *arguments, **named):
        return self.portal.call(lambda: getattr(self.store, method)(*arguments, **named))

    def teardown(self):
        self.call("close")
        self.portal_context.__exit__(None, None, None)

    @rule(target=revisions, kind=KINDS, key=KEYS)
    def put(self, kind, key):
        value = {"n": next(_numbers)}
        written = self.call("put", kind, key, value)
        self.model.write(kind, self.model.root(key), value)
        assert (written.key, written.value) == (self.model.root(key), value)
        return kind, written.key, written.revision, value

    @rule(target=revisions, seen=revisions)
    def compare_and_set(self, seen):
        kind, key, revision, value = seen
        new = {"n": next(_numbers)}
        written = self.call("put", kind, key, new, expected=revision)
        # A revision names one state of one key: it passes only if that state still stands.
        if written is None:
            return multiple()

        assert self.model.records.get((kind, self.model.root(key))) == value
        self.model.write(kind, self.model.root(key), new)
        return kind, written.key, written.revision, new

    @rule(target=revisions, kind=KINDS, key=KEYS)
    def create(self, kind, key):
        value = {"n": next(_numbers)}
        written = self.call("put", kind, key, value, expected=0)
        root = self.model.root(key)
        assert (written is None) == ((kind, root) in self.model.records)
        if written is None:
            return multiple()

        self.model.write(kind, root, value)
        return kind, root, written.revision, value

    @rule(kind=KINDS, key=KEYS)
    def current_revision_always_passes(self, kind, key):
        record = self.call("get", kind, key)
        if record is not None:
            assert self.call("put", kind, key, record.value, expected=record.revision) is not None
            self.model.write(kind, record.key, record.value)

    @rule(kind=KINDS, key=KEYS)
    def delete(self, kind, key):
        root = self.model.root(key)
        assert self.call("delete", kind, key) == ((kind, root) in self.model.records)
        if (kind, root) in self.model.records:
            self.model.write(kind, root, None)

    @rule(kind=KINDS)
    def follow_changes(self, kind):
        changes = self.call("changes", kind, after=self.seen[kind])
        for record in changes.records:
            assert record.change > self.seen[kind]
            self.view[kind].pop(record.key, None)
            if record.value is not None:
                self.view[kind][record.key] = record.value

        self.seen[kind] = changes.change
        assert self.view[kind] == {key: value for (of, key), value in self.model.records.items() if of == kind}

    @rule(stream=KEYS, ids=st.lists(st.sampled_from([None, "i", "j", "k"]), max_size=3), offset=st.integers(0, 9))
    def append(self, stream, ids, offset):
        entries = [({"n": next(_numbers)}, entry_id) for entry_id in ids]
        appended = self.call(
            "append",
            stream,
            [Entry(value=value, entry_id=entry_id) for value, entry_id in entries],
            # Alone, an offset is all that is known of a stream that was never met.
            offset=offset if self.model.streams.get(self.model.root(stream)) else None,
            now_wall=self.now,
        )
        assert (appended.sequences, appended.next_sequence) == self.model.append(stream, entries)

    @rule(stream=KEYS, start=st.integers(0, 5))
    def truncate(self, stream, start):
        rows = self.model.streams.get(self.model.root(stream), [])
        assert self.call("truncate", stream, start) == len(rows[start:])
        del rows[start:]

    @rule(target=leases, key=KEYS, owner=OWNERS)
    def acquire(self, key, owner):
        root, held = self.model.root(key), self.model.holder(key, self.now)
        lease = self.call("acquire", key, owner, TTL, now_wall=self.now)
        assert (lease is None) == (held is not None and held[0] != owner)
        if lease is None:
            return multiple()

        if held:
            assert lease.generation == held[2]
        else:
            assert lease.generation > self.generations.get(root, 0)

        self.generations[root] = max(lease.generation, self.generations.get(root, 0))
        self.model.leases[root] = (owner, self.now + TTL, lease.generation)
        return lease

    def _is_held(self, lease):
        held = self.model.leases.get(self.model.root(lease.key))
        return held is not None and (held[0], held[2]) == (lease.owner, lease.generation)

    @rule(target=leases, lease=consumes(leases))
    def refresh(self, lease):
        refreshed = self.call("refresh", lease, TTL, now_wall=self.now)
        root = self.model.root(lease.key)
        assert (refreshed is not None) == (self._is_held(lease) and self.model.leases[root][1] > self.now)
        if refreshed is not None:
            self.model.leases[root] = (lease.owner, self.now + TTL, lease.generation)

        return refreshed or lease

    @rule(lease=leases)
    def release(self, lease):
        assert self.call("release", lease) == self._is_held(lease)
        if self._is_held(lease):
            del self.model.leases[self.model.root(lease.key)]

    @rule(key=KEYS)
    def force_release(self, key):
        root = self.model.root(key)
        following = self.call("force_release", key)
        assert following > self.generations.get(root, 0)
        self.model.leases.pop(root, None)

    @rule(old=KEYS, new=KEYS)
    def alias(self, old, new):
        roots = self.model.root(old), self.model.root(new)
        self.call("alias", old, new)
        self.model.alias(old, new)
        highest = max(self.generations.get(root, 0) for root in roots)
        self.generations[self.model.root(new)] = highest

    @rule(seconds=st.sampled_from([1.0, TTL, 100.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def forget_nothing_that_is_young(self):
        if not self.model.leases:
            assert self.call("forget", before_wall=1_000_000_000.0) == 0

    @invariant()
    def shows_what_the_model_holds(self):
        for key in "abcd":
            root = self.model.root(key)
            assert self.call("resolve", key) == root
            for kind in ("x", "y"):
                record = self.call("get", kind, key)
                assert (record and record.value) == self.model.records.get((kind, root))
            stored = self.call("entries", key)
            assert [entry.value for entry in stored] == [value for value, _ in self.model.streams.get(root, [])]
            assert [entry.sequence for entry in stored] == list(range(len(stored)))
            held, lease = self.model.holder(key, self.now), self.call("holder", key, now_wall=self.now)
            assert (lease and (lease.owner, lease.expires_wall, lease.generation)) == held


class Broken:
    """A store that is out for good."""

    def __getattr__(self, name):
        async def fail(*arguments, **named):
            raise StoreError("out for the test")

        return fail


@pytest.mark.parametrize(("name", "examples"), [("memory", 80), ("sqlite", 25), ("redis", 15), ("alone", 60)])
@pytest.mark.timeout(300)
def test_a_store_answers_as_the_model(name, examples, tmp_path, request):
    server = request.getfixturevalue("valkey_server") if name == "redis" else None

    class Machine(StoreMachine):
        def make(self):
            def wall():
                return self.now

            number = next(_numbers)
            if name == "sqlite":
                return SqliteStore(tmp_path / f"{number}.db", wall=wall)

            if name == "redis":
                return RedisStore(server.url, namespace=f"model{number}", wall=wall)

            memory = MemoryStore(wall=wall)
            return memory if name == "memory" else DegradingStore(Broken(), lambda notice: None, wall=wall)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
        ),
    )
