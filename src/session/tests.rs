use std::collections::BTreeMap;

use super::*;

const HOME: ShardId = ShardId(3);

#[test]
fn a_session_is_found_by_who_knows_its_secret() {
    let mut table = Table::new(HOME, 10);
    let session = table.open(5 << 100 | 1, "state").unwrap();
    let id = table.id(session).unwrap();
    assert_eq!(table.find(&id), Some(session));
    assert_eq!(table.find(&SessionId::parse(&id.to_string()).unwrap()), Some(session));
    for wrong in [
        SessionId { secret: id.secret ^ 1, ..id },
        SessionId { secret: id.secret ^ (1 << 127), ..id },
        SessionId { slot: 1, ..id },
        SessionId { slot: u32::MAX, ..id },
        SessionId { generation: 1, ..id },
        SessionId { home: ShardId(4), ..id },
    ] {
        assert_eq!(table.find(&wrong), None, "{wrong}");
    }
    assert_eq!(table.get(SessionRef { home: ShardId(4), ..session }), None);
    assert_eq!(table.get_mut(SessionRef { home: ShardId(4), ..session }), None);
    assert_eq!(table.close(session), Some("state"));
    assert_eq!(table.find(&id), None);
    assert_eq!(table.id(session), None);
}

#[test]
fn generations_wrap_and_ids_carry_their_low_bits() {
    let mut table = Table::new(HOME, 1);
    let first = table.open(1, ()).unwrap();
    table.slot_mut(0).unwrap().generation = 0xffff_ffff;
    let last = SessionRef { generation: 0xffff_ffff, ..first };
    assert_eq!(table.id(last).unwrap().generation, 0x00ff_ffff);
    assert_eq!(table.find(&table.id(last).unwrap()), Some(last));
    assert_eq!(table.close(last), Some(()));
    assert_eq!(table.open(1, ()), Ok(first));
}

#[test]
fn a_full_table_refuses_until_somebody_leaves() {
    let mut table = Table::new(HOME, 2_000);
    let sessions: Vec<_> = (0..2_000).map(|n| table.open(n, n).unwrap()).collect();
    assert_eq!(table.open(0, 0), Err(Full));
    assert_eq!(table.len(), 2_000);
    assert_eq!(table.close(sessions[1_500]), Some(1_500));
    let again = table.open(7, 7).unwrap();
    assert_eq!((again.slot, again.generation), (1_500, 1));
    assert_eq!(table.open(0, 0), Err(Full));
    assert_eq!(Table::new(HOME, 0).open(1, ()), Err(Full));
}

/// A history of opening and closing, against a map; everybody who left stays gone.
fn check_history(seed: u64) {
    let mut random = seed;
    let mut below = move |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let mut table = Table::new(HOME, 1_500);
    let mut model: BTreeMap<SessionRef, (u64, SessionId)> = BTreeMap::new();
    let mut gone: Vec<(SessionRef, SessionId)> = Vec::new();
    for step in 0..8_000 {
        // Grow for a while, then shrink.
        if below(10) < if (step / 2_000) % 2 == 0 { 8 } else { 3 } {
            let secret = u128::from(below(1 << 30)) << 64;
            match table.open(secret, step) {
                Ok(session) => {
                    let id = table.id(session).unwrap();
                    assert_eq!(id.secret, secret);
                    assert!(model.insert(session, (step, id)).is_none(), "seed {seed}: given away twice");
                }
                Err(Full) => assert_eq!(model.len(), 1_500),
            }
        } else if let Some(session) = model.keys().min_by_key(|session| session.slot ^ step as u32).copied() {
            let (state, id) = model.remove(&session).unwrap();
            assert_eq!(table.close(session), Some(state), "seed {seed} step {step}");
            assert_eq!(table.close(session), None);
            gone.push((session, id));
        }
        assert_eq!(table.len(), model.len());
        if step % 500 == 0 {
            for (session, (state, id)) in &model {
                assert_eq!(table.get(*session), Some(state));
                assert_eq!(table.get_mut(*session), Some(&mut state.clone()));
                assert_eq!(table.find(id), Some(*session));
                assert_eq!(table.in_slot(session.slot), Some(*session));
            }
            for (session, id) in &gone {
                assert_eq!(table.get(*session), None);
                assert_eq!(table.get_mut(*session), None);
                assert_eq!(table.find(id), None);
            }
            let mut all: Vec<_> = model.iter().map(|(session, (state, _))| (*session, *state)).collect();
            all.sort();
            let slices = (0..table.slots_count()).step_by(100).flat_map(|from| table.iter_slots(from..from + 100));
            assert_eq!(slices.map(|(session, state)| (session, *state)).collect::<Vec<_>>(), all, "seed {seed}");
        }
    }
}

#[test]
fn histories_agree_with_a_map() {
    for seed in 0..5 {
        check_history(seed);
    }
}

#[test]
fn a_session_costs_32_bytes_beside_its_state() {
    assert!(size_of::<Slot<[u64; 10]>>() <= 80 + 32);
}
