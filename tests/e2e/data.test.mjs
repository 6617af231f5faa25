// What apps do with data, with one client writing and another one watching.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { FAMILIES } from "./lib/families.mjs";
import { Server } from "./lib/server.mjs";
import { Record, soon } from "./lib/until.mjs";
import { client, settle, watch } from "./lib/watch.mjs";

let server;
before(async () => {
  server = await Server.start();
});
after(() => server?.stop());

let runs = 0;
const fresh = () => `data${++runs}`;

const PEOPLE = {
  ann: { height: 160, name: "Ann" },
  bob: { height: 185, name: "Bob" },
  cid: { height: 175, name: "Cid" },
  dee: { height: 175, name: "Dee" },
  eve: { name: "Eve" },
};

/** What is asked; who is seen at first; who is seen after `MOVES`. */
const MOVES = { "bob/height": 150, eve: { height: 180, name: "Eve" }, "cid/height": null, fay: { height: 200, name: "Fay" } };
const QUERIES = [
  ["by child", (ref) => ref.orderByChild("height"), "eve ann cid dee bob", "cid bob ann dee eve fay"],
  ["by child, first", (ref) => ref.orderByChild("height").limitToFirst(2), "eve ann", "cid bob"],
  ["by child, last", (ref) => ref.orderByChild("height").limitToLast(2), "dee bob", "eve fay"],
  ["by child, start", (ref) => ref.orderByChild("height").startAt(175), "cid dee bob", "dee eve fay"],
  ["by child, start with key", (ref) => ref.orderByChild("height").startAt(175, "d"), "dee bob", "dee eve fay"],
  ["by child, start after", (ref) => ref.orderByChild("height").startAfter(175), "bob", "eve fay"],
  ["by child, start after key", (ref) => ref.orderByChild("height").startAfter(175, "cid"), "dee bob", "dee eve fay"],
  ["by child, end", (ref) => ref.orderByChild("height").endAt(175), "eve ann cid dee", "cid bob ann dee"],
  ["by child, end before", (ref) => ref.orderByChild("height").endBefore(175), "eve ann", "cid bob ann"],
  ["by child, equal", (ref) => ref.orderByChild("height").equalTo(175), "cid dee", "dee"],
  ["by child, equal with key", (ref) => ref.orderByChild("height").equalTo(175, "dee"), "dee", "dee"],
  ["by child, equal to nothing", (ref) => ref.orderByChild("height").equalTo(null), "eve", "cid"],
  ["by child, range", (ref) => ref.orderByChild("height").startAt(165).endAt(180), "cid dee", "dee eve"],
  ["by child, range, first", (ref) => ref.orderByChild("height").startAt(160).limitToFirst(2), "ann cid", "ann dee"],
  ["by child, range, last", (ref) => ref.orderByChild("height").endAt(180).limitToLast(2), "cid dee", "dee eve"],
  ["by text", (ref) => ref.orderByChild("name").startAt("B").endAt("D\uf8ff"), "bob cid dee", "bob cid dee"],
  ["by key", (ref) => ref.orderByKey(), "ann bob cid dee eve", "ann bob cid dee eve fay"],
  ["by key, start", (ref) => ref.orderByKey().startAt("cid"), "cid dee eve", "cid dee eve fay"],
  ["by key, start after", (ref) => ref.orderByKey().startAfter("cid"), "dee eve", "dee eve fay"],
  ["by key, end before", (ref) => ref.orderByKey().endBefore("cid"), "ann bob", "ann bob"],
  ["by key, equal", (ref) => ref.orderByKey().equalTo("fay"), "", "fay"],
  ["by key, last", (ref) => ref.orderByKey().limitToLast(2), "dee eve", "eve fay"],
  ["first", (ref) => ref.limitToFirst(3), "ann bob cid", "ann bob cid"],
  ["last", (ref) => ref.limitToLast(1), "eve", "fay"],
];

const keys = (snap) => {
  const list = [];
  snap.forEach((child) => void list.push(child.key));
  return list.join(" ");
};

for (const family of FAMILIES) {
  describe(`${family}: queries`, { concurrency: 3 }, () => {
    for (const [name, narrow, first, then] of QUERIES) {
      test(name, async (t) => {
        const namespace = fresh();
        const [writer, reader] = [await client(t, server, namespace), await client(t, server, namespace, family)];
        await writer.ref("people").set(PEOPLE);
        const query = narrow(reader.ref("people"));
        const seen = await watch(query, "value", keys);
        assert.equal(seen.seen.at(-1), first);
        assert.equal(keys(await query.get()), first, "get");
        await writer.ref("people").update(MOVES);
        await seen.untilLast(then);
        const children = [];
        const again = await client(t, server, namespace, family);
        narrow(again.ref("people")).on("child_added", (snap) => children.push(snap.key));
        assert.equal(keys(await narrow(again.ref("people")).once("value")), then, "once");
        assert.equal(children.join(" "), then, "child events");
        // And back again.
        await writer.ref("people").set(PEOPLE);
        await seen.untilLast(first);
        await writer.ref("people").remove();
        await seen.untilLast("");
      });
    }
  });

  describe(`${family}: data`, { concurrency: 3 }, () => {
    const pair = async (t) => {
      const namespace = fresh();
      return [await client(t, server, namespace, family), await client(t, server, namespace)];
    };

    test("values of every kind arrive as they were", async (t) => {
      const [writer, reader] = await pair(t);
      const values = [
        ...["text", "", "ünïcödé 漢字 🐵 \u0001 \" \\ /", true, false, 0, -1, 1.5, 1e21, 5e-324, 1.7976931348623157e308],
        ...[9007199254740991, -9007199254740993, 0.1, 2 ** 31, 123456789012345680000],
        ...[{ a: { b: { c: { d: 1 } } } }, { "a b": 1, "ключ 🔑": 2 }, ["x", "y", "z"]],
      ];
      const seen = await watch(reader.ref("v/x"));
      for (const value of values) {
        await writer.ref("v/x").set(value);
        await seen.untilLast(value);
        assert.deepEqual((await reader.ref("v/x").get()).val(), value);
      }
    });

    test("half a character is replaced, and its writer goes on", async (t) => {
      const [writer, reader] = await pair(t);
      await soon("the acknowledgement", writer.ref("x").set({ text: "a\ud83d", other: "\udc35b" }));
      assert.deepEqual((await reader.ref("x").get()).val(), { text: "a\ufffd", other: "\ufffdb" });
      await soon("the next one", writer.ref("y").set("whole \ud83d\udc35"));
      assert.equal((await reader.ref("y").get()).val(), "whole 🐵");
    });

    test("arrays are lists where they are dense, and maps where they are not", async (t) => {
      const [writer, reader] = await pair(t);
      await writer.ref("list").set(["a", "b", "c"]);
      assert.deepEqual((await reader.ref("list").get()).val(), ["a", "b", "c"]);
      await writer.ref("list/1").remove();
      assert.deepEqual((await reader.ref("list").get()).val(), Object.assign(["a", , "c"]));
      await writer.ref("list").set({ 0: "a", 9: "j" });
      assert.deepEqual((await reader.ref("list").get()).val(), { 0: "a", 9: "j" });
    });

    test("children come in the order of keys: small whole numbers first", async (t) => {
      const [writer, reader] = await pair(t);
      const ordered = ["-2147483648", "-5", "0", "00", "2", "10", "2147483647", "-", "2147483648", "A", "a", "aa", "é", "漢", "🐵"];
      await writer.ref("keys").set(Object.fromEntries([...ordered].reverse().map((key) => [key, true])));
      assert.equal(keys(await reader.ref("keys").get()), ordered.join(" "));
      assert.equal(keys(await reader.ref("keys").orderByKey().limitToFirst(5).get()), ordered.slice(0, 5).join(" "));
      assert.equal(keys(await reader.ref("keys").orderByKey().limitToLast(4).get()), ordered.slice(-4).join(" "));
    });

    test("values order as nothing, false, true, numbers, text, objects", async (t) => {
      const [writer, reader] = await pair(t);
      const values = { e: "a", d: 10, c: 9, b: true, a: false, f: "b", g: { x: 1 }, h: "ä", i: -1 };
      await writer.ref("values").set(values);
      const ordered = "a b i c d e f h g".split(" ");
      assert.equal(keys(await reader.ref("values").orderByValue().get()), ordered.join(" "));
      for (let count = 1; count <= ordered.length; count++) {
        const first = await reader.ref("values").orderByValue().limitToFirst(count).get();
        assert.equal(keys(first), ordered.slice(0, count).join(" "));
      }
    });

    test("priorities order children, move them, and end with the value", async (t) => {
      const [writer, reader] = await pair(t);
      const moved = new Record("moves");
      const seen = await watch(reader.ref("list").orderByPriority(), "value", keys);
      reader.ref("list").orderByPriority().on("child_moved", (snap, before) => moved.add([snap.key, before]));
      await settle(reader);
      await writer.ref("list/a").setWithPriority("a", 3);
      await writer.ref("list/b").setWithPriority("b", 1);
      await writer.ref("list/c").setWithPriority({ deep: true }, "text");
      await writer.ref("list/d").set("d");
      await seen.untilLast("d b a c");
      await writer.ref("list/d").setPriority(2);
      await seen.untilLast("b d a c");
      await moved.untilLast(["d", "b"]);
      const ranged = await reader.ref("list").orderByPriority().startAt(2).endAt(3).get();
      assert.equal(keys(ranged), "d a");
      await writer.ref("list/a").set("a");
      await seen.untilLast("a b d c");
      assert.deepEqual((await reader.ref("list").get()).exportVal(), {
        a: "a",
        b: { ".value": "b", ".priority": 1 },
        c: { deep: true, ".priority": "text" },
        d: { ".value": "d", ".priority": 2 },
      });
    });

    test("child events tell what was added, changed, moved and removed", async (t) => {
      const [writer, reader] = await pair(t);
      const events = new Record("child events");
      for (const event of ["child_added", "child_changed", "child_moved", "child_removed"]) {
        reader.ref("list").orderByChild("n").on(event, (snap, before) => events.add([event, snap.key, before ?? null]));
      }
      await settle(reader);
      await writer.ref("list/a").set({ n: 1 });
      await writer.ref("list/b").set({ n: 2 });
      await writer.ref("list/a/n").set(3);
      await writer.ref("list/b").remove();
      await events.until((seen) => seen.at(-1)?.[0] === "child_removed", "the removal");
      assert.deepEqual(events.seen, [
        ["child_added", "a", null],
        ["child_added", "b", "a"],
        ["child_moved", "a", "b"],
        ["child_changed", "a", "b"],
        ["child_removed", "b", null],
      ]);
    });

    test("an update of many places is one change", async (t) => {
      const [writer, reader] = await pair(t);
      await writer.ref("users").set({ ann: { n: 0 }, joe: { n: 0 }, old: true });
      const users = await watch(reader.ref("users"));
      for (let n = 1; n <= 20; n++) {
        await writer.ref().update({ "users/ann/n": n, "users/joe/n": n, "users/old": null, [`log/${n}`]: true });
      }
      await users.untilLast({ ann: { n: 20 }, joe: { n: 20 } });
      for (const { ann, joe } of users.seen) assert.equal(ann.n, joe.n, "never half");
    });

    test("removing the last child removes the parent", async (t) => {
      const [writer, reader] = await pair(t);
      const top = await watch(reader.ref("a"));
      await writer.ref("a/b/c").set(1);
      await top.untilLast({ b: { c: 1 } });
      await writer.ref("a/b/c").remove();
      await top.untilLast(null);
      assert.equal((await reader.ref("a/b").get()).exists(), false);
    });

    test("a value gives way to children, and children to a value", async (t) => {
      const [writer, reader] = await pair(t);
      const top = await watch(reader.ref("a/b"));
      await writer.ref("a/b").set("leaf");
      await writer.ref("a/b/c/d").set(1);
      await top.untilLast({ c: { d: 1 } });
      await writer.ref("a").set("leaf");
      await top.untilLast(null);
    });

    test("increments add up", async (t) => {
      const [writer, reader] = await pair(t);
      const both = [writer, reader];
      await Promise.all(both.flatMap((one) => Array.from({ length: 50 }, () => one.ref("n").set(one.increment(2)))));
      assert.equal((await reader.ref("n").get()).val(), 200);
    });

    test("server timestamps settle on the server's time", async (t) => {
      const [writer, reader] = await pair(t);
      const [mine, theirs] = [await watch(writer.ref("at")), await watch(reader.ref("at"))];
      await writer.ref("at").set(writer.timestamp());
      await theirs.until((seen) => typeof seen.at(-1) === "number", "a time");
      await settle(writer);
      assert.equal(mine.seen.at(-1), theirs.seen.at(-1));
      assert.equal(theirs.seen.length, 2, "told once");
    });

    test("transactions that compete all count", async (t) => {
      const namespace = fresh();
      const clients = await Promise.all([0, 1, 2, 3].map(() => client(t, server, namespace, family)));
      const one = async (client) => {
        for (let n = 0; n < 10; n++) {
          const { committed } = await client.ref("games/g1/score").transaction((now) => (now ?? 0) + 1);
          assert.ok(committed);
        }
      };
      await soon("the transactions", Promise.all(clients.map(one)));
      assert.equal((await clients[0].ref("games/g1/score").get()).val(), 40);
    });

    test("a transaction sees what is there, may give up, and may remove", async (t) => {
      const [writer, reader] = await pair(t);
      await writer.ref("seat").set({ who: "ann" });
      const taken = await reader.ref("seat").transaction((now) => (now === null ? null : now.who === "ann" ? undefined : { who: "joe" }));
      assert.equal(taken.committed, false);
      assert.deepEqual(taken.snapshot.val(), { who: "ann" });
      const left = await reader.ref("seat").transaction(() => null);
      assert.equal(left.committed, true);
      assert.equal((await writer.ref("seat").get()).exists(), false);
    });

    test("pushed children keep the order in which they were made", async (t) => {
      const [writer, reader] = await pair(t);
      const added = new Record("added");
      reader.ref("log").on("child_added", (snap) => added.add(snap.val()));
      for (let n = 0; n < 30; n++) writer.ref("log").push(n);
      await added.until((seen) => seen.length === 30, "all");
      assert.deepEqual(added.seen, Array.from({ length: 30 }, (_, n) => n));
    });

    test("megabytes go up and come down", async (t) => {
      const [writer, reader] = await pair(t);
      // No characters beyond 16 bits: the SDKs cut their own messages through them.
      const big = { text: "漢字 and ünïcode ".repeat(150_000), many: Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`k${n}`, n])) };
      const seen = await watch(reader.ref("big"), "value", (snap) => snap.val()?.text?.length ?? 0);
      await writer.ref("big").set(big);
      await seen.untilLast(big.text.length);
      assert.deepEqual((await reader.ref("big").get()).val(), big);
    });

    test("after off() nothing more is told", async (t) => {
      const [writer, reader] = await pair(t);
      const seen = new Record("after off");
      const callback = (snap) => seen.add(snap.val());
      const ref = reader.ref("x");
      ref.on("value", callback);
      await writer.ref("x").set(1);
      await seen.untilLast(1);
      ref.off("value", callback);
      await writer.ref("x").set(2);
      await settle(reader);
      assert.equal(seen.seen.at(-1), 1);
    });

    test("listens to a place, above it and below it, agree", async (t) => {
      const [writer, reader] = await pair(t);
      const [below, at, above] = [await watch(reader.ref("a/b/c")), await watch(reader.ref("a/b")), await watch(reader.ref("a"))];
      await writer.ref("a/b/c").set(1);
      await Promise.all([below.untilLast(1), at.untilLast({ c: 1 }), above.untilLast({ b: { c: 1 } })]);
      reader.ref("a").off();
      await writer.ref("a/b").set({ c: 2, d: 3 });
      await Promise.all([below.untilLast(2), at.untilLast({ c: 2, d: 3 })]);
    });

    test("databases share nothing", async (t) => {
      const [one, other] = [await client(t, server, fresh(), family), await client(t, server, fresh(), family)];
      const seen = await watch(other.ref("x"));
      await one.ref("x").set("mine");
      await settle(other);
      assert.deepEqual(seen.seen, [null]);
      assert.equal((await one.ref("x").get()).val(), "mine");
    });
  });
}

describe("a first value and what follows", { concurrency: 2 }, () => {
  for (const path of ["users/joe", "users", ""]) {
    test(`of "/${path}" have no gap and no overlap`, async (t) => {
      const namespace = fresh();
      const [writer, reader] = [await client(t, server, namespace), await client(t, server, namespace)];
      await reader.ref("warm").get();
      // The writer never stops counting while the reader comes and goes.
      let written = 0;
      const writing = (async () => {
        while (written < 400) await writer.ref().update({ "users/joe/n": ++written, "users/ann/n": written });
      })();
      const number = (value) => (path === "users/joe" ? value?.n : path === "users" ? value?.joe?.n : value?.users?.joe?.n);
      while (written < 390) {
        const ref = path ? reader.ref(path) : reader.ref();
        const seen = new Record(`listen at ${path}`);
        const callback = (snap) => seen.add(number(snap.val()) ?? 0);
        ref.on("value", callback);
        await seen.until((values) => values.length >= 3 || values.at(-1) >= 390, "a few values");
        ref.off("value", callback);
        for (let at = 1; at < seen.seen.length; at++) {
          assert.ok(seen.seen[at] > seen.seen[at - 1], `${seen.seen}`);
          assert.equal(seen.seen[at], seen.seen[at - 1] + 1, `nothing is skipped: ${seen.seen}`);
        }
      }
      await writing;
    });
  }

  test("a history of random writes leaves every query's window as a fresh reader sees it", async (t) => {
    const namespace = fresh();
    const [writer, reader] = [await client(t, server, namespace), await client(t, server, namespace)];
    // A small generator with a seed: the same history every time.
    let state = 12345;
    const roll = (sides) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 16) % sides;
    };
    const queries = [
      (ref) => ref.orderByChild("n").limitToFirst(3),
      (ref) => ref.orderByChild("n").limitToLast(2),
      (ref) => ref.orderByChild("n").startAt(3).endAt(6),
      (ref) => ref.orderByChild("deep/n").startAt(2).limitToLast(3),
      (ref) => ref.orderByKey().startAfter("c").limitToFirst(2),
      (ref) => ref.orderByValue().limitToLast(2),
      (ref) => ref.orderByPriority().limitToFirst(2),
    ];
    const windows = await Promise.all(queries.map((narrow) => watch(narrow(reader.ref("list")), "value", (snap) => snap.exportVal())));
    for (let step = 0; step < 60; step++) {
      const key = "abcdef"[roll(6)];
      const actions = [
        () => writer.ref(`list/${key}`).set({ n: roll(9), deep: { n: roll(5) } }),
        () => writer.ref(`list/${key}/n`).set(roll(9)),
        () => writer.ref(`list/${key}/deep/n`).set(roll(5)),
        () => writer.ref(`list/${key}`).remove(),
        () => writer.ref(`list/${key}`).setWithPriority(roll(9), roll(4)),
        () => writer.ref("list").update({ [key]: { n: roll(9) }, a: roll(2) ? null : "text", "g/deep/n": roll(5) }),
      ];
      await actions[roll(actions.length)]();
      await settle(reader);
      if (step % 5 !== 0) continue;
      const judge = await client(t, server, namespace);
      for (const [at, narrow] of queries.entries()) {
        const fresh = (await narrow(judge.ref("list")).once("value")).exportVal();
        await windows[at].untilLast(fresh);
      }
    }
  });
});
