//! The metrics: what the cores and the process have counted, as OpenMetrics text.
//!
//! `docs/OPERATING.md` lists every name; a test compares. The surprising idea: nothing is counted here. A
//! scrape asks each core for its own counts and adds them up, so counting costs a core an addition, and
//! what nobody asks for costs nothing.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::base::meter::Histogram;
use crate::engine::{Came, Kind, Meters};
use crate::op::{End, Protocol};
use crate::runtime::Reading;

/// The content type of [`Sheet::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of a sample's labels.
type Labels = Vec<(&'static str, String)>;

/// How a histogram of ours becomes one of seconds, or of a count.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// What one of ours is.
    unit: f64,
    /// The first and the last bucket that has a bound of its own.
    from: usize,
    to: usize,
}

const MILLISECONDS: Scale = Scale { unit: 1e-3, from: 0, to: 20 };
const MICROSECONDS: Scale = Scale { unit: 1e-6, from: 4, to: 24 };
const COUNT: Scale = Scale { unit: 1.0, from: 0, to: 20 };

#[derive(Debug)]
enum Samples {
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, f64)>),
    /// A counter of seconds.
    Seconds(f64),
    Histogram(Scale, Vec<(Labels, Histogram)>),
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Samples,
}

/// What is to be printed.
#[derive(Debug, Default)]
pub struct Sheet(Vec<Family>);

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

impl Sheet {
    /// A number that only grows; its name gets `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, samples: Vec<(Labels, u64)>) {
        self.0.push(Family { name, help, samples: Samples::Counter(samples) });
    }

    /// A number without labels that only grows.
    pub(super) fn count(&mut self, name: &'static str, help: &'static str, count: u64) {
        self.counter(name, help, vec![(Vec::new(), count)]);
    }

    /// Seconds that only become more.
    pub(super) fn seconds(&mut self, name: &'static str, help: &'static str, seconds: f64) {
        self.0.push(Family { name, help, samples: Samples::Seconds(seconds) });
    }

    /// A number of now.
    pub(super) fn gauges(&mut self, name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) {
        self.0.push(Family { name, help, samples: Samples::Gauge(samples) });
    }

    /// A number of now without labels.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, vec![(Vec::new(), value)]);
    }

    fn histogram(&mut self, name: &'static str, help: &'static str, scale: Scale, samples: Vec<(Labels, Histogram)>) {
        self.0.push(Family { name, help, samples: Samples::Histogram(scale, samples) });
    }

    /// A counter by a word.
    pub(super) fn by<'w>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'w str, u64)>,
    ) {
        let samples = counts.into_iter().map(|(word, count)| (labels([(label, word)]), count));
        self.counter(name, help, samples.collect());
    }

    /// All of it as text.
    ///
    /// # Panics
    ///
    /// Never: text takes whatever is written.
    #[must_use]
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("a string takes whatever is written");
        out
    }

    /// What the cores say.
    pub(super) fn cores(&mut self, readings: &[Reading]) {
        let mut all = Meters::default();
        readings.iter().for_each(|reading| add(&mut all, &reading.engine));
        self.clients(&all);
        self.requests(&all);
        self.loops(readings);
        self.log(readings);
    }

    fn clients(&mut self, all: &Meters) {
        self.gauge("stillhere_connections", "TCP connections now.", whole(all.connections));
        let plain = all.connections_opened.saturating_sub(all.connections_encrypted);
        let opened = [("plain", plain), ("tls", all.connections_encrypted)];
        self.by(
            "stillhere_connections_opened",
            "TCP connections ever, by what they turned out to be.",
            "transport",
            opened,
        );
        let by_protocol = |counts: &[u64; Protocol::ALL.len()]| {
            Protocol::ALL
                .map(|protocol| (labels([("protocol", protocol.as_label())]), counts[protocol as usize]))
                .to_vec()
        };
        let sessions = by_protocol(&all.sessions).into_iter().map(|(labels, count)| (labels, whole(count)));
        self.gauges("stillhere_sessions", "Sessions now, by what their clients speak.", sessions.collect());
        self.counter(
            "stillhere_sessions_opened",
            "Sessions ever, by what their clients speak.",
            by_protocol(&all.sessions_opened),
        );
        self.count("stillhere_quota_refusals", "Sessions and connections that a quota has kept out.", all.unwelcome);
        let silences = End::ALL.map(|end| (labels([("end", end.as_str())]), all.silences[end.index()])).to_vec();
        self.histogram(
            "stillhere_session_silence_seconds",
            "From the last byte heard of a session to its end: how long it took to find out.",
            MILLISECONDS,
            silences,
        );
        self.gauge(
            "stillhere_last_words_pending",
            "Last words that wait for the end of their session.",
            whole(all.last_words),
        );
        self.histogram(
            "stillhere_last_words_delay_seconds",
            "From the end of a session to when its last words had been performed.",
            MILLISECONDS,
            vec![(Vec::new(), all.delays)],
        );
    }

    fn requests(&mut self, all: &Meters) {
        let mut samples = Vec::new();
        for kind in Kind::ALL {
            for came in Came::ALL {
                let labels = labels([("kind", kind.as_str()), ("outcome", came.as_str())]);
                samples.push((labels, all.requests[kind as usize][came as usize]));
            }
        }
        self.counter("stillhere_requests", "Requests for data, and what came of them.", samples);
        self.histogram(
            "stillhere_event_listeners",
            "How many heard each event; the sum is how often anybody was told anything.",
            COUNT,
            vec![(Vec::new(), all.listeners)],
        );
        self.gauge("stillhere_namespaces", "Databases that have been named since the start.", whole(all.namespaces));
        self.gauge("stillhere_listens", "Listens now.", whole(all.listens));
    }

    fn loops(&mut self, readings: &[Reading]) {
        let core = |reading: &Reading| labels([("core", reading.shard.0.to_string().as_str())]);
        let turns = readings.iter().map(|reading| (core(reading), reading.core.turns)).collect();
        self.histogram("stillhere_turn_seconds", "How long the turns of each core took.", MICROSECONDS, turns);
        let stalls = readings.iter().map(|reading| (core(reading), reading.core.stalls)).collect();
        self.counter("stillhere_stalls", "Turns of each core that took longer than a tenth of a second.", stalls);
        let mut queues = Vec::new();
        for reading in readings {
            let mut queue = |name: &str, depth: u64| {
                let mut labels = core(reading);
                labels.push(("queue", name.to_owned()));
                queues.push((labels, whole(depth)));
            };
            queue("inner", reading.engine.inner);
            queue("mesh", reading.core.outbox);
            queue("log", reading.core.held);
            queue("guests", reading.core.guest_queue);
            queue("courier", reading.core.courier_queue);
        }
        self.gauges("stillhere_queue_depth", "What waits in each queue of each core.", queues);
        let tables = readings.iter().map(|reading| reading.engine.table_bytes).sum();
        let held = readings.iter().map(|reading| reading.core.held_bytes).sum();
        let memory = [("tables", tables), ("held", held)].map(|(of, bytes)| (labels([("of", of)]), whole(bytes)));
        self.gauges(
            "stillhere_memory_bytes",
            "Memory by our own account: tables of connections and sessions, and answers held for the log.",
            memory.to_vec(),
        );
    }

    fn log(&mut self, readings: &[Reading]) {
        let merged = |of: fn(&Reading) -> &Histogram| {
            let mut all = Histogram::default();
            readings.iter().for_each(|reading| all.add(of(reading)));
            vec![(Vec::new(), all)]
        };
        self.histogram(
            "stillhere_commit_seconds",
            "From the first record of a frame of the log to when it was safe.",
            MICROSECONDS,
            merged(|reading| &reading.core.commits),
        );
        self.histogram(
            "stillhere_sync_seconds",
            "How long syncs of the log took.",
            MICROSECONDS,
            merged(|reading| &reading.core.syncs),
        );
        let bytes = readings.iter().map(|reading| reading.core.log_bytes).sum();
        self.gauge("stillhere_log_bytes", "Bytes of the log that no snapshot holds yet.", whole(bytes));
        let is_full = readings.iter().any(|reading| reading.core.is_disk_full);
        self.gauge("stillhere_disk_full", "Whether there is no room for the log.", if is_full { 1.0 } else { 0.0 });
    }
}

/// Adds up what two engines have counted.
fn add(all: &mut Meters, more: &Meters) {
    fn each<const N: usize>(all: &mut [u64; N], more: &[u64; N]) {
        all.iter_mut().zip(more).for_each(|(sum, count)| *sum += count);
    }
    all.connections += more.connections;
    all.connections_opened += more.connections_opened;
    all.connections_encrypted += more.connections_encrypted;
    each(&mut all.sessions, &more.sessions);
    each(&mut all.sessions_opened, &more.sessions_opened);
    all.silences.iter_mut().zip(&more.silences).for_each(|(sum, counts)| sum.add(counts));
    all.delays.add(&more.delays);
    all.requests.iter_mut().zip(&more.requests).for_each(|(sum, counts)| each(sum, counts));
    all.listeners.add(&more.listeners);
    all.unwelcome += more.unwelcome;
    all.last_words += more.last_words;
    all.namespaces += more.namespaces;
    all.listens += more.listens;
}

/// As metrics have it: doubles count exactly beyond anything that is counted here.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles; counts stay far below 2^53")]
pub(super) const fn whole(count: u64) -> f64 {
    count as f64
}

impl Collector for Sheet {
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit is printed as it is")]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, samples } in &self.0 {
            let kind = match samples {
                Samples::Counter(_) | Samples::Seconds(_) => MetricType::Counter,
                Samples::Gauge(_) => MetricType::Gauge,
                Samples::Histogram(..) => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            match samples {
                Samples::Seconds(seconds) => ConstCounter::new(*seconds).encode(family)?,
                Samples::Counter(samples) => {
                    each(&mut family, samples, |sample, count| {
                        sample.encode_counter::<NoLabelSet, _, u64>(count, None)
                    })?;
                }
                Samples::Gauge(samples) => each(&mut family, samples, |sample, value| {
                    // Whole numbers look like whole numbers.
                    match *value as i64 {
                        #[expect(clippy::cast_precision_loss, reason = "it is compared with what it was made of")]
                        whole if whole as f64 == *value => sample.encode_gauge(&whole),
                        _ => sample.encode_gauge(value),
                    }
                })?,
                Samples::Histogram(scale, samples) => each(&mut family, samples, |sample, histogram| {
                    let sum = whole(histogram.sum()) * scale.unit;
                    sample.encode_histogram::<NoLabelSet>(sum, histogram.total(), &scale.buckets(histogram), None)
                })?,
            }
        }
        Ok(())
    }
}

/// Encodes each sample, with its labels if it has any.
fn each<T>(
    family: &mut MetricEncoder<'_>,
    samples: &[(Labels, T)],
    encode: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in samples {
        if labels.is_empty() {
            encode(family, value)?;
        } else {
            encode(&mut family.encode_family(labels)?, value)?;
        }
    }
    Ok(())
}

impl Scale {
    /// Bounds and counts, the last bound being none.
    fn buckets(self, histogram: &Histogram) -> Vec<(f64, u64)> {
        let counts = histogram.counts();
        let mut buckets: Vec<(f64, u64)> =
            (self.from..=self.to).map(|bucket| (whole(1 << bucket) * self.unit, counts[bucket])).collect();
        buckets[0].1 = counts[..=self.from].iter().sum();
        buckets.push((f64::INFINITY, counts[self.to + 1..].iter().sum()));
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_told_in_seconds() {
        let mut histogram = Histogram::default();
        [1, 16, 17, 1_000_000, 1 << 40].into_iter().for_each(|us| histogram.count(us));
        let mut sheet = Sheet::default();
        sheet.histogram("x_seconds", "Why.", MICROSECONDS, vec![(labels([("core", "1")]), histogram)]);
        let text = sheet.text();
        for line in [
            "# HELP x_seconds Why.",
            "# TYPE x_seconds histogram",
            r#"x_seconds_bucket{le="0.000016",core="1"} 2"#,
            r#"x_seconds_bucket{le="0.000032",core="1"} 3"#,
            r#"x_seconds_bucket{le="1.048576",core="1"} 4"#,
            r#"x_seconds_bucket{le="+Inf",core="1"} 5"#,
            r#"x_seconds_count{core="1"} 5"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
