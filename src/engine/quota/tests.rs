use super::*;
use crate::base::WallMillis;

fn at(ms: u64) -> Now {
    Now { instant: Instant(ms), wall: WallMillis(ms) }
}

fn wardens(limits: &Limits) -> [Warden; 2] {
    let usage = Arc::new(Usage::new([1, 2, 3, 4]));
    let hashing = Hashing::from_seed([5; 4]);
    [(); 2].map(|()| {
        let mut warden = Warden::new(&hashing);
        warden.limits = Arc::new(limits.clone());
        warden.usage = Some(usage.clone());
        warden
    })
}

#[test]
fn sessions_are_counted_over_all_cores() {
    let quota = Quota { sessions_max: Some(3), ..Quota::default() };
    let limits = Limits { named: BTreeMap::from([("a".into(), quota)]), ..Limits::default() };
    let [one, two] = wardens(&limits);
    let (a, b): (Namespace, Namespace) = ("a".into(), "b".into());
    assert!(one.session_comes(&a) && two.session_comes(&a) && one.session_comes(&a));
    assert!(!one.session_comes(&a) && !two.session_comes(&a));
    assert!((0..100).all(|_| two.session_comes(&b)), "others are not limited");
    two.session_goes(&a);
    assert!(one.session_comes(&a) && !two.session_comes(&a), "room for one");
}

#[test]
fn connections_are_counted_by_address() {
    let [mut one, mut two] = wardens(&Limits { connections_per_address: Some(2), ..Limits::default() });
    let v4 = |last: u8, port: u16| SocketAddr::from(([192, 0, 2, last], port));
    assert!(!one.connection_comes(ConnId(0), v4(1, 1)));
    assert!(!two.connection_comes(ConnId(0), v4(1, 2)));
    assert!(one.connection_comes(ConnId(1), v4(1, 3)), "the third is one too many");
    assert!(one.is_unwelcome(ConnId(1)) && !one.is_unwelcome(ConnId(0)));
    assert!(!one.connection_comes(ConnId(2), v4(2, 1)), "another address is another's");
    one.connection_goes(ConnId(1));
    assert!(one.connection_comes(ConnId(1), v4(1, 4)), "one that was never let in leaves no room");
    two.connection_goes(ConnId(0));
    assert!(!two.connection_comes(ConnId(0), v4(1, 5)));
    let v6 = |group: u16, host: u16| SocketAddr::from(([0x2001, 0xdb8, 0, group, 0, 0, 0, host], 1));
    assert!(!one.connection_comes(ConnId(5), v6(1, 1)) && !one.connection_comes(ConnId(6), v6(1, 2)));
    assert!(one.connection_comes(ConnId(7), v6(1, 3)), "a /64 is one");
    assert!(!one.connection_comes(ConnId(8), v6(2, 3)));
}

#[test]
fn a_second_of_writes_may_come_at_once_and_then_they_come_at_their_rate() {
    let everywhere = Quota { writes_per_second: Some(10), ..Quota::default() };
    let [mut warden, _] = wardens(&Limits { everywhere, ..Limits::default() });
    let name: Namespace = "a".into();
    let mut burst = |ms: u64| (0..100).filter(|_| warden.has_write(at(ms), &name, 10)).count();
    assert_eq!(burst(0), 10);
    assert_eq!((burst(50), burst(100), burst(150)), (0, 1, 0));
    assert_eq!(burst(60_000), 10, "nothing is saved beyond a second");
}
