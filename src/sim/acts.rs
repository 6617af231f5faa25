//! What clients of a history do, as the dice say.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::actor::Op;
use super::history::History;
use super::reference::{Law, Place, Who, Write};
use super::tree::{By, Edge, Want};
use crate::base::Millis;
use crate::base::limits::REQUESTS_IN_FLIGHT_MAX;

/// Few keys, so that clients meet. Some are numbers, which order before the others.
const KEYS: [&str; 6] = ["a", "b", "c", "1", "2", "10"];
/// What stands first in a path.
const ROOMS: [&str; 4] = ["a", "b", "c", "locked"];
/// What stands first where leaves stand, mostly.
const HALLS: [&str; 2] = ["n", "m"];
/// Places of one big registration: two of them are more than a ledger takes.
const BIG_WORD_PLACES: usize = 600;

impl History {
    /// One thing happens.
    pub(super) fn act(&mut self) {
        let roll = self.dice.below(1_000);
        match roll {
            0..=99 => self.somebody_joins(),
            100..=139 => self.somebody_leaves(),
            140..=189 => self.time_passes(),
            190..=204 => self.somebody_freezes(),
            205..=214 if self.plan.changes_law => {
                let is_local = self.plan.is_apart && self.dice.percent(80);
                let law = if is_local { Law::roll_local(&mut self.dice) } else { Law::roll(&mut self.dice) };
                self.legislate(law);
            }
            215 => self.somebody_is_hasty(),
            216..=219 => self.somebody_leaves_much(),
            _ => {
                if let Some(actor) = self.somebody() {
                    self.ask_something(actor);
                }
            }
        }
    }

    /// A client that can ask for something; not one that watches.
    fn somebody(&mut self) -> Option<usize> {
        let here: Vec<usize> = (0..self.actors.len())
            .filter(|index| {
                let actor = &self.actors[*index];
                actor.is_here() && !actor.is_watcher && self.world.is_open(actor.client)
            })
            .collect();
        if here.is_empty() { None } else { Some(*self.dice.pick(&here)) }
    }

    fn somebody_joins(&mut self) {
        let living = self.actors.iter().filter(|actor| !actor.is_over && !actor.has_said_goodbye).count();
        if living >= self.plan.actors_max + self.plan.databases {
            return;
        }
        let (database, shard) = (self.dice.index(self.plan.databases), self.dice.index(8));
        let replaces = self.dice.percent(50).then(|| self.earlier(database)).flatten();
        let actor = self.join(database, shard, replaces);
        if self.dice.percent(self.plan.signs_in) {
            let who = if self.dice.percent(70) { Who::User } else { Who::Admin };
            self.sign_in(actor, who);
        }
    }

    /// Something to begin with: rooms with something in them, most of them open.
    pub(super) fn furnish(&mut self, watcher: usize) {
        for room in &ROOMS[..3] {
            for key in KEYS {
                if self.dice.percent(50) {
                    let value = self.value(1);
                    self.set_at(watcher, &format!("{room}/{key}"), &value);
                }
            }
            if self.dice.percent(80) {
                self.set_at(watcher, &format!("open/{room}"), &json!(true));
            }
        }
    }

    /// An earlier session to be replaced: usually one of the same database, which ends it.
    fn earlier(&mut self, database: usize) -> Option<(Option<usize>, String)> {
        let known: Vec<usize> = (0..self.actors.len())
            .filter(|index| self.actors[*index].id.is_some() && !self.actors[*index].is_watcher)
            .collect();
        if known.is_empty() {
            return None;
        }
        // The last ones more often: clients name the session that they had.
        let index = if self.dice.percent(60) { known[known.len() - 1] } else { *self.dice.pick(&known) };
        let id = self.actors[index].id.clone()?;
        if self.dice.percent(10) {
            self.reach("replaced by a wrong name");
            let last = if id.ends_with('0') { '1' } else { '0' };
            return Some((None, format!("{}{last}", &id[..id.len() - 1])));
        }
        Some(((self.actors[index].database == database).then_some(index), id))
    }

    fn somebody_leaves(&mut self) {
        if let Some(actor) = self.somebody() {
            self.leave(actor);
        }
    }

    fn somebody_freezes(&mut self) {
        let frozen = self.actors.iter().position(|actor| actor.is_frozen);
        if let Some(actor) = frozen {
            self.note(|_, text| write!(text, "{actor} thaws"));
            self.actors[actor].is_frozen = false;
            self.world.thaw(self.actors[actor].client);
            if self.world.is_open(self.actors[actor].client) {
                self.reach("thawed in time");
            }
        } else if let Some(actor) = self.somebody() {
            self.note(|_, text| write!(text, "{actor} freezes"));
            self.actors[actor].is_frozen = true;
            self.world.freeze(self.actors[actor].client);
        }
    }

    fn time_passes(&mut self) {
        let span = match self.dice.below(4) {
            0 => self.dice.below(20),
            1 => self.dice.below(1_000),
            2 => self.dice.below(10_000),
            _ => self.dice.below(60_000),
        };
        self.pass(Millis(span));
    }

    /// More requests than may be on their way.
    fn somebody_is_hasty(&mut self) {
        let Some(actor) = self.somebody() else { return };
        self.reach("hasty");
        let count = REQUESTS_IN_FLIGHT_MAX + 100;
        for number in 0..count {
            if number.is_multiple_of(300) {
                self.ask(actor, "s", &json!({"c": {}}), Op::Home("ok"));
            }
            let path = "nowhere".to_owned();
            self.ask(actor, "n", &json!({"p": path}), Op::Unlisten { path, tag: None });
        }
    }

    /// Last words until there is no room.
    fn somebody_leaves_much(&mut self) {
        let Some(actor) = self.somebody() else { return };
        for _ in 0..1 + self.dice.below(2) {
            let base = self.path(1);
            let from = self.dice.below(400);
            let places: Map<String, Json> =
                (0..BIG_WORD_PLACES as u64).map(|place| (format!("much/{}", from + place), json!(true))).collect();
            self.leave_merge(actor, &base, &places);
        }
    }

    fn ask_something(&mut self, actor: usize) {
        match self.dice.below(100) {
            0..=19 => self.set(actor),
            20..=31 => self.merge(actor),
            32..=36 => self.set_priority(actor),
            37..=41 => self.transact(actor),
            42..=58 => self.leave_word(actor),
            59..=63 => self.cancel(actor),
            64..=76 => self.listen_somewhere(actor),
            77..=81 => self.unlisten(actor),
            82..=87 => self.get(actor),
            88..=91 => {
                let who = *self.dice.pick(&[Who::Admin, Who::User, Who::Nobody]);
                self.sign_in(actor, who);
            }
            92 => {
                self.ask(actor, "unauth", &json!({}), Op::Home("ok"));
                self.is_now(actor, Who::Nobody);
            }
            93..=95 => self.ask_in_vain(actor),
            _ => self.open_a_room(actor),
        }
    }

    /// A path of up to so many keys.
    fn path(&mut self, depth_max: usize) -> String {
        let is_apart = self.plan.is_apart && depth_max > 1 && self.dice.below(300) > 0;
        let depth = match self.dice.below(100) {
            _ if is_apart => 2 + self.dice.index(depth_max - 1),
            0..=2 => 0,
            3..=39 => depth_max.min(2),
            _ => depth_max.min(1 + self.dice.index(3)),
        };
        if depth == 1 && self.plan.is_apart && self.dice.percent(25) {
            return (*self.dice.pick(&HALLS)).to_owned();
        }
        let mut path = String::new();
        for level in 0..depth {
            let room = if self.dice.percent(95) { *self.dice.pick(&ROOMS[..3]) } else { ROOMS[3] };
            let key = if level == 0 { room } else { *self.dice.pick(&KEYS) };
            path.push_str(if level == 0 { "" } else { "/" });
            path.push_str(key);
        }
        path
    }

    fn unique(&mut self) -> i64 {
        self.token += 1;
        self.token
    }

    fn leaf(&mut self) -> Json {
        match self.dice.below(10) {
            0 => json!(true),
            1 => json!(false),
            2 => json!(self.dice.below(5)),
            3 => json!(*self.dice.pick(&["on", "off", "", "é\n"])),
            4 => json!(format!("t{}", self.unique())),
            _ => json!(self.unique()),
        }
    }

    fn value(&mut self, depth_max: usize) -> Json {
        match self.dice.below(100) {
            0..=9 => Json::Null,
            10..=14 => json!({".sv": "timestamp"}),
            15..=22 => {
                let delta = self.unique();
                json!({".sv": {"increment": delta}})
            }
            23..=55 if depth_max > 0 => {
                let count = 1 + self.dice.index(4);
                let mut members = Map::new();
                for _ in 0..count {
                    members.insert((*self.dice.pick(&KEYS)).to_owned(), self.value(depth_max - 1));
                }
                if self.dice.percent(15) {
                    members.insert(".priority".to_owned(), self.priority());
                }
                Json::Object(members)
            }
            56..=58 if depth_max > 0 => json!([self.leaf(), null, self.leaf()]),
            59..=64 => json!({".value": self.leaf(), ".priority": self.priority()}),
            65 if self.dice.percent(20) => json!("x".repeat(20_000)),
            _ => self.leaf(),
        }
    }

    fn priority(&mut self) -> Json {
        match self.dice.below(5) {
            0 => Json::Null,
            1 => json!({".sv": "timestamp"}),
            2 => json!(*self.dice.pick(&["p", "q"])),
            _ => json!(self.dice.below(6)),
        }
    }

    /// Where somebody's last word waits.
    fn awaited(&mut self, database: usize) -> Option<String> {
        let words = self.actors.iter().filter(|actor| actor.database == database).flat_map(|actor| &actor.words.0);
        let places: Vec<String> = words.flat_map(|word| &word.places).map(|place| place.path.clone()).collect();
        if places.is_empty() { None } else { Some(self.dice.pick(&places).clone()) }
    }

    /// A write above the places that one core holds.
    fn set_above(&mut self, actor: usize) {
        let (path, value) = self.value_above();
        self.set_at(actor, &path, &value);
        if self.dice.percent(35) {
            let places = [("a/1".to_owned(), Json::Null), ("b/2".to_owned(), Json::Null)].into_iter().collect();
            self.interfere(actor, "", &places);
        }
    }

    fn value_above(&mut self) -> (String, Json) {
        if self.dice.percent(10) {
            let mut members = Map::new();
            for _ in 0..self.dice.below(6) {
                let (room, value) = self.value_of_room();
                members.insert(room, value);
            }
            return (String::new(), Json::Object(members));
        }
        self.value_of_room()
    }

    /// What is to stand one key below the root.
    fn value_of_room(&mut self) -> (String, Json) {
        let is_hall = self.dice.percent(45);
        let room = if is_hall { *self.dice.pick(&HALLS) } else { *self.dice.pick(&ROOMS) };
        let value = match self.dice.below(100) {
            0..=24 => Json::Null,
            25..=39 if !is_hall => self.value(2),
            _ if is_hall => match self.dice.below(6) {
                0 => json!({".sv": "timestamp"}),
                1 => json!({".sv": {"increment": self.unique()}}),
                2 => json!({".value": self.leaf(), ".priority": self.priority()}),
                3 => json!({"1": self.leaf(), "c": self.value(1)}),
                _ => self.leaf(),
            },
            _ => {
                let members = (0..1 + self.dice.index(5)).map(|_| ((*self.dice.pick(&KEYS)).to_owned(), self.value(1)));
                Json::Object(members.collect())
            }
        };
        (room.to_owned(), value)
    }

    fn set(&mut self, actor: usize) {
        if self.plan.is_apart && self.dice.percent(15) {
            return self.set_above(actor);
        }
        let awaited = self.dice.percent(30).then(|| self.awaited(self.actors[actor].database)).flatten();
        let path = awaited.unwrap_or_else(|| self.path(3));
        let value = self.value(2);
        self.set_at(actor, &path, &value);
    }

    fn set_at(&mut self, actor: usize, path: &str, value: &Json) {
        let write = set_of(path, value);
        self.ask(actor, "p", &json!({"p": format!("/{path}"), "d": value}), Op::Write { write, if_hash: None });
    }

    fn set_priority(&mut self, actor: usize) {
        let path = format!("{}/.priority", self.path(3));
        let value = self.priority();
        self.set_at(actor, &path, &value);
    }

    /// Places of a merge, none above another.
    fn places(&mut self, base: &str) -> Map<String, Json> {
        let mut places = Map::new();
        for _ in 0..self.dice.below(5) {
            let depth = 1 + self.dice.index(2);
            let mut place = (0..depth).map(|_| *self.dice.pick(&KEYS)).collect::<Vec<_>>().join("/");
            let is_priority = self.dice.percent(10);
            if is_priority {
                place.push_str("/.priority");
            }
            let value = if is_priority { self.priority() } else { self.value(1) };
            let new = Place::new(base, &place, &value);
            let is_free = places.iter().all(|(other, value)| {
                let other = Place::new(base, other, value);
                !other.covers(&new) && !new.covers(&other)
            });
            if is_free {
                places.insert(place, value);
            }
        }
        places
    }

    /// Places of a merge whose first two keys are not the same: several cores may hold them.
    fn far_places(&mut self) -> (String, Map<String, Json>) {
        let mut base = String::new();
        if self.dice.percent(40) {
            let room = *self.dice.pick(&ROOMS[..3]);
            base.push_str(room);
        }
        let mut places = Map::new();
        if base.is_empty() && self.dice.percent(30) {
            let (room, value) = self.value_of_room();
            places.insert(room, value);
        }
        for _ in 0..2 + self.dice.below(4) {
            let room = if self.dice.percent(97) { *self.dice.pick(&ROOMS[..3]) } else { ROOMS[3] };
            let mut keys = if base.is_empty() { vec![room] } else { Vec::new() };
            keys.push(*self.dice.pick(&KEYS));
            if self.dice.percent(30) {
                keys.push(*self.dice.pick(&KEYS));
            }
            let is_priority = self.dice.percent(10);
            if is_priority {
                keys.push(".priority");
            }
            let place = keys.join("/");
            let value = if is_priority { self.priority() } else { self.value(1) };
            let new = Place::new(&base, &place, &value);
            let is_free = places.iter().all(|(other, value)| {
                let other = Place::new(&base, other, value);
                !other.covers(&new) && !new.covers(&other)
            });
            if is_free {
                places.insert(place, value);
            }
        }
        (base, places)
    }

    fn merge(&mut self, actor: usize) {
        let is_far = self.plan.is_apart && self.dice.percent(60);
        let (base, places) = if is_far {
            self.far_places()
        } else {
            let base = self.path(2);
            let places = self.places(&base);
            (base, places)
        };
        let write = merge_of(&base, &places);
        let body = json!({"p": format!("/{base}"), "d": places});
        self.ask(actor, "m", &body, Op::Write { write, if_hash: None });
        if is_far && self.dice.percent(35) {
            self.interfere(actor, &base, &places);
        }
    }

    /// While several cores are about to do as one what somebody has asked, something happens that concerns them.
    fn interfere(&mut self, actor: usize, base: &str, places: &Map<String, Json>) {
        self.send_and_deliver(actor);
        let database = self.actors[actor].database;
        let others: Vec<usize> = (0..self.actors.len())
            .filter(|index| self.actors[*index].is_here() && self.actors[*index].database == database)
            .filter(|index| self.world.is_open(self.actors[*index].client))
            .collect();
        if others.is_empty() {
            return;
        }
        match self.dice.below(20) {
            0 if self.plan.changes_law => {
                let law = Law::roll(&mut self.dice);
                self.legislate(law);
            }
            1..=3 => {
                let law = Law::roll_local(&mut self.dice);
                self.legislate(law);
            }
            4 => {
                let other = *self.dice.pick(&others);
                self.ask(other, "oc", &json!({"p": "/", "d": null}), Op::Cancel(String::new()));
            }
            5..=7 => self.leave(actor),
            _ => {
                let names: Vec<&String> = places.keys().filter(|place| !place.ends_with(".priority")).collect();
                if names.is_empty() {
                    return;
                }
                for _ in 0..3 {
                    let other = *self.dice.pick(&others);
                    let place = super::tree::join(base, names[self.dice.index(names.len())]);
                    let value = self.value(1);
                    self.set_at(other, &place, &value);
                    self.send_and_deliver(other);
                }
            }
        }
    }

    /// What somebody has asked is on its way, and goes on its way for a while.
    fn send_and_deliver(&mut self, actor: usize) {
        self.world.carry(self.actors[actor].client, usize::MAX);
        for _ in 0..self.dice.below(8) {
            self.world.deliver();
        }
        self.pump();
    }

    /// A write on condition that the data is what the client believes.
    fn transact(&mut self, actor: usize) {
        let one = &self.actors[actor];
        let whole: Vec<_> = one.views.iter().filter(|view| view.want.is_all()).collect();
        let (path, hash) = match whole.first() {
            Some(view) if self.dice.percent(80) => (view.path.clone(), view.tree.hash()),
            _ => (self.path(2), String::new()),
        };
        let value = self.value(1);
        let write = set_of(&path, &value);
        let body = json!({"p": format!("/{path}"), "d": value, "h": hash});
        self.ask(actor, "p", &body, Op::Write { write, if_hash: Some(hash) });
    }

    fn leave_word(&mut self, actor: usize) {
        let base = self.path(3);
        match self.dice.below(10) {
            0 => {
                let path = format!("{base}/.priority");
                let value = self.priority();
                self.leave_set(actor, &path, &value);
            }
            1..=4 => {
                let places = self.places(&base);
                self.leave_merge(actor, &base, &places);
            }
            _ => {
                let value = self.value(1);
                self.leave_set(actor, &base, &value);
            }
        }
    }

    fn leave_set(&mut self, actor: usize, path: &str, value: &Json) {
        self.ask(actor, "o", &json!({"p": format!("/{path}"), "d": value}), Op::LastWord(set_of(path, value)));
    }

    fn leave_merge(&mut self, actor: usize, base: &str, places: &Map<String, Json>) {
        let word = merge_of(base, places);
        self.ask(actor, "om", &json!({"p": format!("/{base}"), "d": places}), Op::LastWord(word));
    }

    fn cancel(&mut self, actor: usize) {
        let path = self.path(2);
        self.ask(actor, "oc", &json!({"p": format!("/{path}"), "d": null}), Op::Cancel(path));
    }

    fn want(&mut self) -> Want {
        if self.dice.percent(35) {
            return Want::default();
        }
        let index = match self.dice.below(5) {
            0 => By::Priority,
            1 => By::Value,
            2 => By::Child("a".to_owned()),
            3 => By::Child("b/1".to_owned()),
            _ => By::Key,
        };
        let start = self.dice.percent(30).then(|| self.edge(&index));
        let end = self.dice.percent(30).then(|| self.edge(&index));
        let limit = self.dice.percent(75).then(|| (1 + self.dice.index(3), self.dice.percent(50)));
        if start.is_none() && end.is_none() && limit.is_none() {
            return Want::default();
        }
        Want { index, start, end, limit }
    }

    fn edge(&mut self, index: &By) -> Edge {
        let key = (*self.dice.pick(&KEYS)).to_owned();
        let is_inclusive = self.dice.percent(70);
        if *index == By::Key {
            return Edge { value: json!(key), key: None, is_inclusive };
        }
        let value = if self.dice.percent(20) { Json::Null } else { self.leaf() };
        Edge { value, key: self.dice.percent(50).then_some(key), is_inclusive }
    }

    fn listen_somewhere(&mut self, actor: usize) {
        let memories = &self.actors[actor].memories;
        let (path, want) = if memories.is_empty() || self.dice.percent(60) {
            let depth_max = *self.dice.pick(&[0, 1, 1, 1, 2]);
            let (path, want) = (self.path(depth_max), self.want());
            let is_whole = path.is_empty() && self.plan.is_apart && self.dice.percent(95);
            (path, if is_whole { Want::default() } else { want })
        } else {
            let (path, want, _) = self.dice.pick(memories);
            (path.clone(), want.clone())
        };
        let is_known = self.actors[actor].views.iter().any(|view| (&view.path, &view.want) == (&path, &want));
        if !is_known {
            self.listen(actor, &path, &want);
        }
    }

    fn unlisten(&mut self, actor: usize) {
        let open: Vec<usize> =
            (0..self.actors[actor].views.len()).filter(|index| !self.actors[actor].views[*index].is_closing).collect();
        if open.is_empty() {
            return;
        }
        let index = *self.dice.pick(&open);
        let view = &mut self.actors[actor].views[index];
        view.is_closing = true;
        let (path, tag) = (view.path.clone(), view.tag);
        let mut body = json!({"p": format!("/{path}")});
        if let Some(tag) = tag {
            body["t"] = json!(tag);
            body["q"] = view.want.to_json();
        }
        self.ask(actor, "n", &body, Op::Unlisten { path, tag });
    }

    fn get(&mut self, actor: usize) {
        let depth_max = if self.plan.is_apart { *self.dice.pick(&[0, 1, 1, 2]) } else { 2 };
        let (path, want) = (self.path(depth_max), self.want());
        self.ask(actor, "g", &json!({"p": format!("/{path}"), "q": want.to_json()}), Op::Get { path, want });
    }

    /// Something that its home answers, or refuses.
    fn ask_in_vain(&mut self, actor: usize) {
        let (name, body, status) = match self.dice.below(7) {
            0 => ("s", json!({"c": {}}), "ok"),
            1 => ("echo", json!({"d": [1]}), "ok"),
            2 => ("dance", json!({}), "unknown_action"),
            3 => ("p", json!({"p": "/a.b", "d": 1}), "invalid_data"),
            4 => ("m", json!({"p": "/a", "d": {"b": 1, "b/c": 2}}), "invalid_data"),
            5 => ("p", json!({"d": 1}), "invalid_request"),
            _ => ("auth", json!({"cred": "stranger"}), "invalid_token"),
        };
        self.ask(actor, name, &body, Op::Home(status));
    }

    fn open_a_room(&mut self, actor: usize) {
        let path = format!("open/{}", self.dice.pick(&ROOMS[..3]));
        let value = json!(self.dice.percent(60));
        self.set_at(actor, &path, &value);
    }
}

fn set_of(path: &str, value: &Json) -> Write {
    let place = Place::new("", path, value);
    Write { base: place.path.clone(), places: vec![place], is_merge: false }
}

fn merge_of(base: &str, places: &Map<String, Json>) -> Write {
    let places = places.iter().map(|(place, value)| Place::new(base, place, value)).collect();
    Write { base: base.to_owned(), places, is_merge: true }
}
