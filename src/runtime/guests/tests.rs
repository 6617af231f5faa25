use std::sync::Mutex;
use std::task::Wake;
use std::time::{Duration, Instant};

use super::*;
use crate::base::{Millis, SessionId};
use crate::engine::Opening;
use crate::op::{Identity, Outcome, Request};
use crate::runtime::wake::Bell;

/// Remembers what it hears.
#[derive(Debug, Default)]
struct Noting {
    place: Place,
    heard: Mutex<Vec<GuestWord>>,
}

impl Noting {
    fn heard(&self) -> Vec<GuestWord> {
        self.heard.lock().unwrap().clone()
    }
}

impl Ear for Noting {
    fn place(&self) -> &Place {
        &self.place
    }

    fn hear(&self, word: GuestWord) {
        self.heard.lock().unwrap().push(word);
    }

    fn hear_event(&self, _: &Arc<Event>, _: Tag) {}
}

/// Counts how often it is woken.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn one() -> (Guests, Door, Courier) {
    let seats: Arc<[Seat]> = [Seat::new(Bell::new().unwrap())].into();
    connect(ShardId(0), &seats, true).unwrap()
}

fn opening() -> Saying {
    let opening =
        Opening { namespace: "a".into(), identity: Identity::NOBODY, replaces: None, timeout: Some(Millis(1)) };
    Saying::Open(Box::new(opening))
}

fn enter(door: &Door, waker: &Waker) -> Option<Ticket> {
    let mut entering = Box::pin(door.enter());
    match entering.as_mut().poll(&mut Context::from_waker(waker)) {
        Poll::Ready(ticket) => Some(ticket),
        Poll::Pending => None,
    }
}

/// Waits for what another thread does.
#[track_caller]
fn until(is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::yield_now();
    }
}

fn take_all(guests: &mut Guests) -> Vec<(GuestId, Saying)> {
    let mut all = Vec::new();
    loop {
        guests.begin_turn();
        let before = all.len();
        all.extend(std::iter::from_fn(|| guests.next()));
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn a_full_queue_keeps_others_waiting_until_half_of_it_is_taken() {
    let (mut guests, door, _courier) = one();
    let counting = Arc::new(Counting::default());
    let waker = Waker::from(Arc::clone(&counting));
    let ear = Arc::new(Noting::default());
    for n in 0..GUEST_QUEUE_MAX {
        let ticket = enter(&door, &waker).expect("there is room");
        let ask = Saying::Ask { number: 1, request: Box::new(Request::Profile) };
        door.say(ticket, ear.clone(), if n == 0 { opening() } else { ask });
    }
    assert!(enter(&door, &waker).is_none(), "one too many");
    // What must not wait finds its way all the same.
    door.say_at_once(ear, Saying::Heard);
    guests.begin_turn();
    let taken = std::iter::from_fn(|| guests.next()).count();
    assert_eq!(taken, GUEST_SAYINGS_PER_TURN, "a turn takes so much");
    assert!(guests.has_work(), "and knows that there is more");
    guests.flush();
    let rest = take_all(&mut guests).len();
    assert_eq!(taken + rest, GUEST_QUEUE_MAX + 1);
    guests.flush();
    until(|| counting.0.load(Ordering::SeqCst) == 1);
    assert!(enter(&door, &waker).is_some());
}

#[test]
fn a_ticket_that_is_given_back_is_room_for_another() {
    let (_guests, door, _courier) = one();
    let waker = Waker::noop();
    let mut tickets: Vec<Ticket> = (0..GUEST_QUEUE_MAX).map(|_| enter(&door, waker).unwrap()).collect();
    assert!(enter(&door, waker).is_none());
    tickets.pop();
    assert!(enter(&door, waker).is_some());
}

#[test]
fn numbers_are_used_again_and_late_sayings_are_nobodys() {
    let (mut guests, door, _courier) = one();
    let (first, second) = (Arc::new(Noting::default()), Arc::new(Noting::default()));
    door.say_at_once(first.clone(), opening());
    assert!(matches!(take_all(&mut guests)[..], [(GuestId(0), Saying::Open(_))]));
    let id = SessionId { home: ShardId(0), slot: 1, generation: 2, secret: 3 };
    guests.tell(GuestId(0), GuestWord::Opened { id });
    guests.tell(GuestId(0), over());
    // Its program has not heard that yet.
    door.say_at_once(first.clone(), Saying::Heard);
    door.say_at_once(second.clone(), opening());
    assert!(matches!(take_all(&mut guests)[..], [(GuestId(0), Saying::Open(_))]));
    guests.tell(GuestId(0), GuestWord::Outcome { number: 7, outcome: Outcome::Done });
    guests.flush();
    until(|| second.heard() == [GuestWord::Outcome { number: 7, outcome: Outcome::Done }]);
    assert_eq!(first.heard(), [GuestWord::Opened { id }, over()]);
}

#[test]
fn whatever_is_said_when_the_core_ends_is_answered() {
    let (mut guests, door, courier) = one();
    let ears: Vec<_> = (0..3).map(|_| Arc::new(Noting::default())).collect();
    door.say_at_once(ears[0].clone(), opening());
    assert_eq!(take_all(&mut guests).len(), 1);
    door.say_at_once(ears[1].clone(), opening());
    drop(guests);
    door.say_at_once(ears[2].clone(), opening());
    courier.0.expect("there is one").join().unwrap();
    for (n, ear) in ears.iter().enumerate() {
        assert_eq!(ear.heard(), [over()], "{n}");
    }
    assert!(enter(&door, Waker::noop()).is_some(), "nobody has to wait for a core that has ended");
}
