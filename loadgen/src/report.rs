//! What a run has found, for people and for programs.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::check::Findings;
use crate::clock::Moment;
use crate::picture;

/// Above this share of a core, the generator may be what limits a run.
const BUSY_MAX: f64 = 0.9;
/// What is told of latencies.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The longest latency that is told apart from longer ones: about 18 minutes.
const NS_MAX: u64 = 1 << 40;

/// Many spans of time.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, NS_MAX, 3).expect("these bounds are allowed"))
    }
}

impl Latency {
    /// Adds one.
    pub fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// From the first of them up: this share is at most so long, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        ms(self.0.value_at_quantile(quantile))
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 nanoseconds")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// What was known at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Moment,
    /// CPU time of the server, in nanoseconds, if it is known.
    pub server_cpu_ns: Option<u64>,
    /// CPU time of this process, in nanoseconds.
    pub own_cpu_ns: u64,
    /// The server's own memory, if it is known.
    pub server_bytes: Option<u64>,
}

/// What a run has found.
#[derive(Debug, Default)]
pub struct Report {
    scenario: String,
    driver: String,
    rows: Vec<(String, f64, &'static str)>,
    latencies: Vec<(String, Latency)>,
    /// What the reader must know before believing the figures.
    pub warnings: Vec<String>,
    /// What the check has found.
    pub findings: Option<Findings>,
    /// Why the run was not as it should be.
    pub failure: Option<String>,
    /// The engine works in this process: its CPU time is in ours.
    is_inside: bool,
}

impl Report {
    /// Of a run in which nothing has happened.
    #[must_use]
    pub fn new(scenario: &str, driver: &str, is_inside: bool) -> Self {
        Self { scenario: scenario.to_owned(), driver: driver.to_owned(), is_inside, ..Self::default() }
    }

    /// Adds a figure.
    pub fn row(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push((name.into(), value, unit));
    }

    /// Adds latencies.
    pub fn latency(&mut self, name: impl Into<String>, latency: Latency) {
        if latency.count() > 0 {
            self.latencies.push((name.into(), latency));
        }
    }

    /// Adds what a phase of `count` things cost, each called `thing`.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 of anything")]
    pub fn phase(&mut self, name: &str, thing: &str, count: u64, from: Sample, to: Sample) {
        let seconds = to.at.since_s(from.at);
        self.row(name, count as f64, "");
        self.row(format!("{name} a second"), count as f64 / seconds, "1/s");
        if let Some((from_ns, to_ns)) = from.server_cpu_ns.zip(to.server_cpu_ns) {
            let spent_us = to_ns.saturating_sub(from_ns) as f64 / 1e3;
            self.row(format!("server CPU per {thing}"), spent_us / count as f64, "us");
            self.row(format!("server CPU, {name}"), spent_us / 1e4 / seconds, "% of a core");
        }
        let own = to.own_cpu_ns.saturating_sub(from.own_cpu_ns) as f64 / 1e9 / seconds;
        self.row(format!("own CPU, {name}"), own * 100.0, "% of a core");
        if own > BUSY_MAX && !self.is_inside {
            self.warnings.push(format!(
                "{name}: the load generator used {:.0} % of its core: it, not the server, may be the limit",
                own * 100.0
            ));
        }
    }

    /// Whether all went as it should.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failure.is_none() && self.findings.as_ref().is_none_or(Findings::is_clean)
    }

    /// As a table.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut out = format!("{} ({})\n\n", self.scenario, self.driver);
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, value, unit) in &self.rows {
            let line = format!("  {name:width$}  {:>14} {unit}", figure(*value));
            let _infallible = writeln!(out, "{}", line.trim_end());
        }
        if !self.latencies.is_empty() {
            let width = self.latencies.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let _infallible = write!(out, "\n  {:width$}", "milliseconds");
            for name in ["min"].into_iter().chain(QUANTILES.map(|(name, _)| name)) {
                let _infallible = write!(out, " {name:>10}");
            }
            out.push('\n');
            for (name, latency) in &self.latencies {
                let _infallible = write!(out, "  {name:width$} {:>10.3}", ms(latency.0.min()));
                for (_, quantile) in QUANTILES {
                    let _infallible = write!(out, " {:>10.3}", latency.quantile_ms(quantile));
                }
                out.push('\n');
            }
        }
        if let Some(findings) = &self.findings {
            let Findings { good, lost, early, double, wrong, examples } = findings;
            let _infallible = writeln!(
                out,
                "\n  check: {good} as they should be, {lost} lost, {early} early, {double} double, {wrong} wrong"
            );
            for example in examples {
                let _infallible = writeln!(out, "    {example}");
            }
        }
        for warning in &self.warnings {
            let _infallible = writeln!(out, "\n  warning: {warning}");
        }
        if let Some(failure) = &self.failure {
            let _infallible = writeln!(out, "\n  FAILED: {failure}");
        }
        out
    }

    /// Its latencies as an SVG file, if it has any.
    #[must_use]
    pub fn to_picture(&self) -> Option<String> {
        picture::draw(&format!("{} ({})", self.scenario, self.driver), &self.latencies)
    }

    /// As one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let figures: Map<_, _> =
            self.rows.iter().map(|(name, value, unit)| (name.clone(), json!({"value": value, "unit": unit}))).collect();
        let latencies = self.latencies.iter().map(|(name, latency)| {
            let mut told: Map<_, _> =
                QUANTILES.iter().map(|(name, at)| ((*name).to_owned(), json!(latency.quantile_ms(*at)))).collect();
            told.insert("min".to_owned(), json!(ms(latency.0.min())));
            told.insert("count".to_owned(), json!(latency.count()));
            (name.clone(), Value::Object(told))
        });
        let check = self.findings.as_ref().map(|findings| {
            let Findings { good, lost, early, double, wrong, examples } = findings;
            json!({"good": good, "lost": lost, "early": early, "double": double, "wrong": wrong, "examples": examples})
        });
        json!({
            "scenario": self.scenario,
            "driver": self.driver,
            "is_good": self.is_good(),
            "figures": figures,
            "latencies_ms": latencies.collect::<Map<_, _>>(),
            "check": check,
            "warnings": self.warnings,
            "failure": self.failure,
        })
    }
}

/// A figure with as many digits as can be believed.
#[must_use]
pub fn figure(value: f64) -> String {
    let digits = if value.fract() == 0.0 || value.abs() >= 1_000.0 { 0 } else { 3 };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_keep_three_digits() {
        let mut latency = Latency::default();
        (1..=1_000).for_each(|us| latency.record_ns(us * 1_000));
        latency.record_ns(60_000_000_000);
        assert_eq!(latency.count(), 1_001);
        let near = |value: f64, expected: f64| assert!((value / expected - 1.0).abs() < 2e-3, "{value} {expected}");
        near(latency.quantile_ms(0.5), 0.501);
        near(latency.quantile_ms(0.99), 0.991);
        near(latency.quantile_ms(1.0), 60_000.0);
    }

    #[test]
    fn a_busy_generator_is_told() {
        #[track_caller]
        fn check(own_ns: u64, is_inside: bool, warnings: usize) {
            let mut report = Report::new("writes", "firebase", is_inside);
            let from = Sample { at: Moment(0), server_cpu_ns: Some(0), own_cpu_ns: 0, server_bytes: None };
            let to = Sample { at: Moment(1_000_000_000), server_cpu_ns: Some(5_000_000), own_cpu_ns: own_ns, ..from };
            report.phase("writes", "write", 1_000, from, to);
            assert_eq!(report.warnings.len(), warnings);
            let figures = &report.to_json()["figures"];
            assert_eq!(figures["server CPU per write"]["value"], 5.0);
            assert_eq!(figures["writes a second"]["value"], 1_000.0);
        }
        check(950_000_000, false, 1);
        check(950_000_000, true, 0);
        check(500_000_000, false, 0);
    }

    #[test]
    fn a_finding_fails_the_run() {
        let mut report = Report::new("writes", "firebase", false);
        assert!(report.is_good());
        report.findings = Some(Findings { good: 5, ..Findings::default() });
        assert!(report.is_good());
        report.findings = Some(Findings { good: 5, early: 1, ..Findings::default() });
        assert!(!report.is_good());
        assert_eq!(report.to_json()["is_good"], false);
        assert!(report.to_table().contains("1 early"));
    }
}
