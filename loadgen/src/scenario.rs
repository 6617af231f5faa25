//! Scenarios: which plays, in which order, and what is measured between them.

use std::io;
use std::time::Duration;

use crate::check::Findings;
use crate::client::{Link, Play, Swarm};
use crate::clock::{self, Moment};
use crate::devices::{Act, Devices};
use crate::pace::Pace;
use crate::plan::{Driver, Plan, Scenario};
use crate::plays::{FanOut, Flap, Goal, Hold, Join, Leave, Mixed, Rates, Reading, Setup, Silence, Watcher, Writes};
use crate::process::Process;
use crate::report::{Report, Sample};

/// How long the server is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_millis(500);
/// After the last client's deadline, last words may take this long to be seen.
const GRACE: Duration = Duration::from_secs(1);
/// So much longer those that are too late are waited for, to tell by how much: mosquitto 2.0.11 looks for the silent every
/// five seconds.
const LATE: Duration = Duration::from_secs(15);

/// One run.
pub struct Run<'p, L, S> {
    plan: &'p Plan,
    swarm: Swarm<L>,
    show: S,
    /// Everything of this run stands below.
    root: String,
    deadline: Moment,
    report: Report,
}

/// Clients that most scenarios need beside their sessions: one who watches or writes.
const OTHERS: u32 = 1;

impl<'p, L: Link, S: FnMut(Moment, &str)> Run<'p, L, S> {
    /// A run of `plan` on `swarm`, whose progress `show` shows.
    pub fn new(plan: &'p Plan, swarm: Swarm<L>, is_inside: bool, show: S) -> Self {
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        Self {
            plan,
            swarm,
            show,
            // Several generators may begin at the same moment.
            root: format!("run{}-{}", clock::wall_ms(), std::process::id()),
            deadline: clock::now() + plan.limit,
            report: Report::new(&name(&plan.scenario), &name(&plan.driver), is_inside),
        }
    }

    /// Plays it to its end.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn run(mut self) -> io::Result<Report> {
        self.report.row("sessions", self.plan.sessions().into(), "");
        match self.plan.scenario {
            _ if self.plan.driver == Driver::Coap => self.devices()?,
            Scenario::Idle => self.idle()?,
            Scenario::Storm => self.storm()?,
            Scenario::MassDisconnect => self.mass_disconnect()?,
            Scenario::SilentDeath => self.silent_death()?,
            Scenario::FanOut => self.fan_out()?,
            Scenario::Writes => self.writes()?,
            Scenario::Flap => self.flap()?,
            Scenario::Mixed => self.mixed()?,
            Scenario::Raw => unreachable!("it serves, and plays nothing"),
        }
        let complaints = self.swarm.complaints;
        self.report.warnings.extend(complaints);
        Ok(self.report)
    }

    fn play(&mut self, play: &mut impl Play, until: Moment) -> io::Result<bool> {
        self.swarm.play(play, until.min(self.deadline), &mut self.show)
    }

    fn sample(&self) -> io::Result<Sample> {
        Ok(Sample {
            at: clock::now(),
            server_cpu_ns: self.swarm.link.server_cpu_ns(),
            own_cpu_ns: Process::own().cpu_ns()?,
            server_bytes: self.swarm.link.server_bytes(),
        })
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.report.failure.get_or_insert(why.into());
    }

    /// Connects the sessions, from client 1 on.
    fn join(&mut self, setup: Setup, watcher: Option<&mut Watcher>) -> io::Result<()> {
        let sessions = self.plan.sessions();
        let is_paced = self.plan.scenario == Scenario::Storm;
        let pace = self.plan.rate.filter(|_| is_paced).map(|rate| Pace::new(clock::now(), rate));
        let from = self.sample()?;
        let mut join = Join::new(OTHERS..OTHERS + sessions, setup, self.plan.window, pace, watcher);
        let is_over = self.play(&mut join, Moment::NEVER)?;
        let to = self.sample()?;
        self.report.phase("connects", "connect", join.ready.into(), from, to);
        if let Some(most) = join.most_ready {
            let per_second = f64::from(join.ready) * 0.99 / most.since_s(from.at);
            self.report.row("connects a second, up to 99 %", per_second, "1/s");
        }
        if join.failed > 0 || !is_over {
            self.fail(format!("of {sessions} sessions, {} connected and {} failed", join.ready, join.failed));
        }
        self.report.latency("connect", join.latency);
        Ok(())
    }

    /// Connects client 0.
    fn join_first(&mut self, setup: Setup) -> io::Result<()> {
        let mut join = Join::new(0..OTHERS, setup, 1, None, None);
        let until = clock::now() + Duration::from_secs(10);
        if !self.play(&mut join, until)? || join.failed > 0 {
            return Err(io::Error::other(format!(
                "no client could connect to {}: {}",
                self.plan.address,
                self.swarm.complaints.join("; ")
            )));
        }
        Ok(())
    }

    fn last_words(&self) -> Setup {
        if self.plan.words == 0 {
            return Setup::Nothing;
        }
        Setup::LastWords { root: self.root.clone(), words: self.plan.words, first: OTHERS }
    }

    fn hold(&mut self, span: Duration) -> io::Result<Hold> {
        let mut hold = Hold::new(clock::now() + span);
        self.play(&mut hold, Moment::NEVER)?;
        Ok(hold)
    }

    fn idle(&mut self) -> io::Result<()> {
        self.join_first(Setup::Nothing)?;
        self.hold(SETTLE)?;
        let before = self.sample()?;
        self.join(self.last_words(), None)?;
        self.hold(SETTLE)?;
        let from = self.sample()?;
        self.memory("memory a session", before, from);
        let hold = self.hold(self.plan.measured)?;
        let to = self.sample()?;
        self.memory("memory a session, at the end", before, to);
        if let Some((from_ns, to_ns)) = from.server_cpu_ns.zip(to.server_cpu_ns) {
            let spent_us = us(to_ns.saturating_sub(from_ns));
            self.report.row("server CPU while idle", spent_us / 1e4 / to.at.since_s(from.at), "% of a core");
            if hold.pings > 0 {
                self.report.row("heartbeats", count(hold.pings), "");
                self.report.row("server CPU per heartbeat", spent_us / count(hold.pings), "us");
            }
        }
        if hold.gone > 0 {
            self.fail(format!("{} sessions were sent away", hold.gone));
        }
        Ok(())
    }

    fn memory(&mut self, name: &str, from: Sample, to: Sample) {
        if let Some((from_bytes, to_bytes)) = from.server_bytes.zip(to.server_bytes) {
            let grown = count(to_bytes) - count(from_bytes);
            self.report.row(name, grown / f64::from(self.plan.sessions()), "bytes");
        }
    }

    fn storm(&mut self) -> io::Result<()> {
        self.join_first(Setup::Nothing)?;
        self.join(self.last_words(), None)
    }

    fn watcher(&mut self) -> io::Result<Watcher> {
        let tracks = self.plan.sessions() as usize * self.plan.words as usize;
        self.join_first(Setup::Listen(self.root.clone()))?;
        Ok(Watcher::new(0, &self.root, tracks))
    }

    fn mass_disconnect(&mut self) -> io::Result<()> {
        let mut watcher = self.watcher()?;
        self.join(self.last_words(), Some(&mut watcher))?;
        let stay = Duration::from_nanos((Moment::START + self.plan.stay).since_ns(clock::now()));
        let gone = self.hold(stay.max(SETTLE))?.gone;
        if gone > 0 {
            self.fail(format!("{gone} sessions were sent away"));
        }
        let clients = OTHERS..OTHERS + self.plan.sessions();
        self.swarm.link.take_longest_ns();
        let from = self.sample()?;
        let mut leave = Leave::new(clients, self.plan.words, self.plan.ending(), &mut watcher);
        if let Some(pause) = self.plan.watcher_pause {
            leave.order(Reading::Pauses);
            self.play(&mut leave, from.at + pause)?;
            let paused = self.sample()?;
            if let Some((before, waiting)) = from.server_bytes.zip(paused.server_bytes) {
                let grown_mib = (count(waiting) - count(before)) / f64::from(1 << 20);
                self.report.row("memory grown while nobody reads", grown_mib, "MiB");
            }
            leave.order(Reading::GoesOn);
        }
        self.play(&mut leave, Moment::NEVER)?;
        let to = Sample { at: leave.last_seen, ..self.sample()? };
        let (begun, seen) = (leave.begun.unwrap_or(to.at), leave.since_own.count());
        let going_s = leave.all_gone.unwrap_or(to.at).since_s(begun);
        let (since_first, since_own) = (leave.since_first, leave.since_own);
        self.report.phase("last words", "last word", seen, Sample { at: begun, ..from }, to);
        self.report.row("all clients gone after", going_s * 1e3, "ms");
        self.report.row("last event after", to.at.since_s(begun) * 1e3, "ms");
        if let Some(longest_ns) = self.swarm.link.take_longest_ns() {
            self.report.row("longest turn of the engine", us(longest_ns), "us");
        }
        self.report.latency("event since the first went", since_first);
        self.report.latency("event since its own went", since_own);
        // Nothing may come twice: what would, has a moment to.
        self.finish(watcher)
    }

    fn silent_death(&mut self) -> io::Result<()> {
        let mut watcher = self.watcher()?;
        self.join(self.last_words(), Some(&mut watcher))?;
        let clients = OTHERS..OTHERS + self.plan.sessions();
        let timeout = self.plan.session_timeout;
        let from = self.sample()?;
        let until = from.at + timeout + GRACE + LATE;
        let mut silence = Silence::new(clients, self.plan.words, timeout, &mut watcher);
        self.play(&mut silence, until)?;
        let to = self.sample()?;
        silence.settle();
        let lateness = silence.lateness;
        self.report.phase("last words", "last word", lateness.count(), from, to);
        let latest_ms = lateness.quantile_ms(1.0);
        if latest_ms > GRACE.as_secs_f64() * 1e3 {
            self.fail(format!("the latest last word came {latest_ms} ms after its deadline"));
        }
        self.report.latency("event after its deadline", lateness);
        self.finish(watcher)
    }

    /// Watches a little longer, then closes the model.
    fn finish(&mut self, mut watcher: Watcher) -> io::Result<()> {
        let mut rest = Join::new(0..0, Setup::Nothing, 1, None, Some(&mut watcher));
        let until = clock::now() + SETTLE;
        let mut hold = Still { play: &mut rest, until, now: Moment::START };
        self.play(&mut hold, Moment::NEVER)?;
        self.found(watcher.model.finish());
        Ok(())
    }

    fn found(&mut self, findings: Findings) {
        if !findings.is_clean() && !self.plan.check {
            self.report.warnings.push("not all was as it should be; --check makes that a failure".to_owned());
        }
        self.report.findings = Some(findings);
    }

    /// The scenarios of devices: they join, most of them stay for a while, and then they may fall silent.
    fn devices(&mut self) -> io::Result<()> {
        let plan = self.plan;
        let is_end = plan.scenario == Scenario::SilentDeath;
        let is_stay = is_end || plan.scenario == Scenario::Idle;
        if !is_stay && plan.scenario != Scenario::Storm {
            return Err(io::Error::other("the driver coap plays idle, storm and silent-death"));
        }
        let mut watcher = if is_end { Some(self.watcher()?) } else { None };
        if watcher.is_none() {
            self.join_first(Setup::Nothing)?;
        }
        self.hold(SETTLE)?;
        let (target, count) = (plan.coap, plan.sessions());
        let mut devices = Devices::new(target, &plan.ns, &self.root, count, plan.window, watcher.as_mut())?;
        let before = self.sample()?;
        devices.begin(before.at, Act::Join, plan.rate);
        let is_joined = self.play(&mut devices, Moment::NEVER)?;
        let joined = self.sample()?;
        self.report.phase("connects", "connect", devices.ready.into(), before, joined);
        self.memory("memory a session, just joined", before, joined);
        if is_stay && is_joined {
            let until = joined.at + plan.measured;
            devices.begin(joined.at, Act::Beat { every: plan.heartbeat, until }, None);
            self.play(&mut devices, Moment::NEVER)?;
            let to = self.sample()?;
            self.report.phase("pings", "ping", devices.pings, joined, to);
            self.memory("memory a session", before, to);
        }
        if is_end && is_joined {
            let from = self.sample()?;
            let until = from.at + plan.session_timeout + GRACE + LATE;
            devices.begin(from.at, Act::Fade { timeout: plan.session_timeout }, None);
            self.play(&mut devices, until)?;
            let to = self.sample()?;
            devices.settle();
            self.report.phase("last words", "last word", devices.lateness.count(), from, to);
            let latest_ms = devices.lateness.quantile_ms(1.0);
            if latest_ms > GRACE.as_secs_f64() * 1e3 {
                self.fail(format!("the latest last word came {latest_ms} ms after its deadline"));
            }
        }
        self.tell_of_devices(devices, is_joined);
        watcher.map_or(Ok(()), |watcher| self.finish(watcher))
    }

    fn tell_of_devices(&mut self, devices: Devices<'_>, is_joined: bool) {
        self.report.row("requests sent again", count(devices.again), "");
        if !is_joined || devices.failed > 0 {
            self.fail(format!("{} devices have joined, {} requests failed", devices.ready, devices.failed));
        }
        self.report.latency("connect and last word", devices.joined);
        self.report.latency("ping", devices.pinged);
        self.report.latency("write of a live device", devices.probed);
        self.report.latency("event after its deadline", devices.lateness);
    }

    fn fan_out(&mut self) -> io::Result<()> {
        let place = format!("{}/x", self.root);
        self.join_first(Setup::Nothing)?;
        self.join(Setup::Listen(place.clone()), None)?;
        let begun = clock::now();
        let pace = self.plan.rate.map(|rate| Pace::new(begun, rate));
        let mut fan_out = FanOut::new(&place, self.plan.sessions(), pace, self.plan.check);
        fan_out.measure_until(begun + self.plan.warm_up);
        self.play(&mut fan_out, Moment::NEVER)?;
        self.swarm.link.take_longest_ns();
        let from = self.sample()?;
        fan_out.measure_until(from.at + self.plan.measured);
        let is_over = self.play(&mut fan_out, Moment::NEVER)?;
        let to = self.sample()?;
        self.report.phase("deliveries", "delivery", fan_out.delivered, from, to);
        if let Some(longest_ns) = self.swarm.link.take_longest_ns() {
            self.report.row("longest turn of the engine", us(longest_ns), "us");
        }
        self.report.latency("delivery", fan_out.latency.clone());
        self.report.latency("last delivery of a write", fan_out.until_last.clone());
        if fan_out.failed > 0 || !is_over {
            self.fail(format!("{} things went wrong", fan_out.failed));
        }
        if let Some(model) = fan_out.into_model() {
            self.found(model.finish());
        }
        Ok(())
    }

    fn writes(&mut self) -> io::Result<()> {
        let sessions = self.plan.sessions();
        let mut join = Join::new(0..sessions, Setup::Nothing, self.plan.window, None, None);
        if !self.play(&mut join, Moment::NEVER)? || join.failed > 0 {
            let complaints = self.swarm.complaints.join("; ");
            return Err(io::Error::other(format!("{} clients could not connect: {complaints}", join.failed)));
        }
        let begun = clock::now();
        let pace = self.plan.rate.map(|rate| Pace::new(begun, rate));
        let mut writes = Writes::new(&self.root, sessions, self.plan.depth, pace, self.plan.check);
        writes.measure_until(begun + self.plan.warm_up);
        self.play(&mut writes, Moment::NEVER)?;
        let from = self.sample()?;
        writes.measure_until(from.at + self.plan.measured);
        self.play(&mut writes, Moment::NEVER)?;
        let to = self.sample()?;
        self.report.phase("writes", "write", writes.answered, from, to);
        self.report.latency("write", writes.latency.clone());
        let mut rest = Settle { writes: &mut writes };
        let is_settled = self.play(&mut rest, clock::now() + Duration::from_secs(10))?;
        if writes.failed > 0 || !is_settled {
            self.fail(format!("{} writes failed, all answered: {is_settled}", writes.failed));
        }
        if self.plan.check && is_settled {
            let mut back = writes.into_read_back();
            if !self.play(&mut back, clock::now() + Duration::from_secs(10))? {
                self.fail("not everything could be read back");
            }
            if let Some(model) = back.model {
                self.found(model.finish());
            }
        }
        Ok(())
    }

    fn flap(&mut self) -> io::Result<()> {
        let sessions = self.plan.sessions();
        let mut watcher = if self.plan.check { Some(self.watcher()?) } else { None };
        if watcher.is_none() {
            self.join_first(Setup::Nothing)?;
        }
        let mut flap = Flap::new(&self.root, OTHERS, sessions, self.plan.ending(), watcher.as_mut());
        flap.measure_until(clock::now() + self.plan.warm_up);
        self.play(&mut flap, Moment::NEVER)?;
        let from = self.sample()?;
        flap.measure_until(from.at + self.plan.measured);
        let is_over = self.play(&mut flap, Moment::NEVER)?;
        let to = self.sample()?;
        let Flap { coming, going, rounds, failed, .. } = flap;
        self.report.phase("rounds", "round", rounds, from, to);
        self.report.latency("connect until online", coming);
        self.report.latency("gone until seen", going);
        if failed > 0 || !is_over {
            self.fail(format!("{failed} rounds failed"));
        }
        match watcher {
            Some(watcher) => self.finish(watcher),
            None => Ok(()),
        }
    }
}

/// What the scenario `mixed` does when nothing else is said.
const WRITES_PER_SECOND: f64 = 500.0;

impl<L: Link, S: FnMut(Moment, &str)> Run<'_, L, S> {
    fn mixed(&mut self) -> io::Result<()> {
        let plan = self.plan;
        let mut join = Join::new(0..plan.others(), Setup::Listen(self.root.clone()), plan.window, None, None);
        if !self.play(&mut join, Moment::NEVER)? || join.failed > 0 {
            let complaints = self.swarm.complaints.join("; ");
            return Err(io::Error::other(format!("no client could connect to {}: {complaints}", plan.address)));
        }
        let rates = Rates {
            writes: plan.rate.unwrap_or(WRITES_PER_SECOND),
            departures: plan.churn,
            heartbeat: plan.heartbeat,
            mix: plan.mix(),
            window: plan.window as usize,
            timeout: plan.session_timeout,
        };
        let mut mixed = Mixed::new(&self.root, plan.others(), plan.sessions(), rates);
        let mut is_over = self.play(&mut mixed, Moment::NEVER)?;
        mixed.go_on(clock::now(), Goal::Until(clock::now() + plan.warm_up));
        self.play(&mut mixed, Moment::NEVER)?;
        let from = self.sample()?;
        mixed.go_on(from.at, Goal::Until(from.at + plan.measured));
        self.play(&mut mixed, Moment::NEVER)?;
        let to = self.sample()?;
        let tally = mixed.tally.clone();
        self.report.phase("deeds", "deed", tally.deeds(), from, to);
        let [closed, goodbyes, resets, silences] = tally.departures;
        let rows = [
            ("arrivals", tally.arrivals),
            ("closed", closed),
            ("said goodbye", goodbyes),
            ("reset", resets),
            ("fell silent", silences),
            ("status writes", tally.writes),
            ("signs of life", tally.beats),
            ("changes seen", tally.seen),
        ];
        rows.iter().for_each(|(name, number)| self.report.row(*name, count(*number), ""));
        self.report.latency("connect until online", tally.connect);
        self.report.latency("status write", tally.write);
        self.report.latency("status seen", tally.status);
        mixed.go_on(clock::now(), Goal::Leave);
        // Of those who have fallen silent the server has yet to find out.
        let patience = plan.session_timeout + GRACE + Duration::from_secs(60);
        is_over &= self.play(&mut mixed, clock::now() + patience)?;
        self.report.latency("last word since its session went", mixed.tally.word.clone());
        self.report.latency("last word after its deadline", mixed.tally.late.clone());
        if mixed.failed > 0 || !is_over {
            self.fail(format!("{} things went wrong; all were seen to go: {is_over}", mixed.failed));
        }
        // Nothing may come twice: what would, has a moment to.
        let mut rest = Still { play: &mut mixed, until: clock::now() + SETTLE, now: Moment::START };
        self.play(&mut rest, Moment::NEVER)?;
        self.found(mixed.finish());
        Ok(())
    }
}

/// Hears what a play hears, until a moment, and does nothing.
struct Still<'a, P> {
    play: &'a mut P,
    until: Moment,
    now: Moment,
}

impl<P: Play> Play for Still<'_, P> {
    fn on(&mut self, at: Moment, client: u32, event: &crate::client::Event<'_>, orders: &mut crate::client::Orders) {
        self.play.on(at, client, event, orders);
    }

    fn tick(&mut self, now: Moment, _orders: &mut crate::client::Orders) -> Moment {
        self.now = now;
        self.until
    }

    fn is_over(&self) -> bool {
        self.now >= self.until
    }

    fn progress(&self) -> String {
        "watching whether anything comes twice".to_owned()
    }
}

/// Waits for the answers to what was written.
struct Settle<'a> {
    writes: &'a mut Writes,
}

impl Play for Settle<'_> {
    fn on(&mut self, at: Moment, client: u32, event: &crate::client::Event<'_>, orders: &mut crate::client::Orders) {
        self.writes.on(at, client, event, orders);
    }

    fn tick(&mut self, now: Moment, orders: &mut crate::client::Orders) -> Moment {
        self.writes.tick(now, orders)
    }

    fn is_over(&self) -> bool {
        self.writes.is_settled()
    }

    fn progress(&self) -> String {
        self.writes.progress()
    }
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 of anything")]
fn count(count: u64) -> f64 {
    count as f64
}

fn us(ns: u64) -> f64 {
    count(ns) / 1e3
}
