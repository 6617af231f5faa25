//! Latencies as a picture: an SVG file, by percentile, as far out as the samples reach.
//!
//! The surprising idea: each step to the right has ten times fewer samples beyond it, so what happens to
//! one client in a thousand is as wide as what happens to half of them. The time is logarithmic, too.

use std::fmt::Write as _;

use crate::report::Latency;

/// Width and height, in pixels.
const SIZE: (f64, f64) = (860.0, 460.0);
/// Left, top, right and bottom of the curves.
const FRAME: (f64, f64, f64, f64) = (80.0, 56.0, 630.0, 400.0);
/// Points of a curve from one power of ten to the next.
const POINTS: u32 = 24;
/// Told apart in print, and by who does not see all colours.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

/// The picture of `latencies` under `title`; `None` if there are none.
#[must_use]
pub fn draw(title: &str, latencies: &[(String, Latency)]) -> Option<String> {
    let most = latencies.iter().map(|(_, latency)| latency.count()).max().filter(|most| *most > 0)?;
    let powers = powers(most);
    let shortest = latencies.iter().map(|(_, latency)| latency.quantile_ms(0.0)).fold(f64::MAX, f64::min);
    let longest = latencies.iter().map(|(_, latency)| latency.quantile_ms(1.0)).fold(0.0, f64::max);
    let low = shortest.max(1e-3).log10().floor();
    let high = longest.max(1e-3).log10().ceil().max(low + 1.0);
    let (left, top, right, bottom) = FRAME;
    let x = move |power: f64| left + (right - left) * power / f64::from(powers);
    let y = move |ms: f64| bottom - (bottom - top) * (ms.max(1e-3).log10() - low) / (high - low);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{left}\" y=\"32\" font-size=\"18\">{}</text>\n",
        SIZE.0,
        SIZE.1,
        escaped(title)
    );
    for power in 0..=powers {
        let at = x(f64::from(power));
        let name = if power == 0 { "min".to_owned() } else { percentile(power) };
        line(&mut out, (at, top), (at, bottom));
        label(&mut out, (at, bottom + 20.0), "middle", &name);
    }
    let mut ms = low;
    while ms <= high {
        let value = 10.0_f64.powf(ms);
        line(&mut out, (left, y(value)), (right, y(value)));
        label(&mut out, (left - 8.0, y(value) + 4.0), "end", &format!("{value} ms"));
        ms += 1.0;
    }
    for (index, (name, latency)) in latencies.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let curve: String = points(powers)
            .filter(|power| *power == 0.0 || beyond(*power) * count(latency.count()) >= 1.0)
            .map(|power| format!("{:.1},{:.1} ", x(power), y(latency.quantile_ms(1.0 - beyond(power)))))
            .collect();
        let height = 72.0 + 22.0 * f64::from(u32::try_from(index).unwrap_or(u32::MAX));
        let _infallible = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <rect x=\"650\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            curve.trim_end(),
            height - 11.0
        );
        label(&mut out, (668.0, height), "start", name);
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// Powers of ten of which so many samples can tell something: at least nine of ten.
fn powers(samples: u64) -> u32 {
    samples.ilog10().clamp(1, 6)
}

/// From the shortest latency to the last power, as a power.
fn points(powers: u32) -> impl Iterator<Item = f64> {
    (0..=powers * POINTS).map(|point| f64::from(point) / f64::from(POINTS))
}

/// The share of samples beyond a power.
fn beyond(power: f64) -> f64 {
    10.0_f64.powf(-power)
}

/// `p90`, `p99`, `p99.9` …
fn percentile(power: u32) -> String {
    match power {
        1 => "p90".to_owned(),
        _ => {
            let nines = "9".repeat(power as usize - 2);
            format!("p99{}{nines}", if nines.is_empty() { "" } else { "." })
        }
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _infallible =
        writeln!(out, "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#ddd\"/>", from.0, from.1, to.0, to.1);
}

fn label(out: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    let _infallible = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>", at.0, at.1);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 of anything")]
fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_their_names() {
        assert_eq!([1, 2, 3, 4].map(percentile), ["p90", "p99", "p99.9", "p99.99"]);
        assert_eq!([1, 99, 100, 5_000, u64::MAX].map(powers), [1, 1, 2, 3, 6]);
    }

    #[test]
    fn every_latency_is_a_curve_within_the_frame() {
        let (mut fast, mut slow) = (Latency::default(), Latency::default());
        (1..=1_000_u64).for_each(|us| fast.record_ns(us * 1_000));
        (1..=100_u64).for_each(|ms| slow.record_ns(ms * 1_000_000));
        let latencies = [("a < b".to_owned(), fast), ("slow".to_owned(), slow)];
        let picture = draw("writes & more", &latencies).unwrap();
        assert!(picture.contains("writes &amp; more") && picture.contains("a &lt; b"), "{picture}");
        assert!(picture.contains(">p99.9<") && !picture.contains(">p99.99<"), "as far as the samples reach");
        let curves: Vec<Vec<(f64, f64)>> = picture
            .lines()
            .filter_map(|line| line.strip_prefix("<polyline points=\"")?.split('"').next())
            .map(|points| {
                let pairs = points.split(' ').map(|pair| pair.split_once(',').unwrap());
                pairs.map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).collect()
            })
            .collect();
        assert_eq!(curves.len(), 2);
        let (left, top, right, bottom) = FRAME;
        for curve in &curves {
            assert!(curve.iter().all(|(x, y)| (left..=right).contains(x) && (top..=bottom).contains(y)), "{curve:?}");
            assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1), "it rises");
        }
        assert!(curves[0].len() > curves[1].len(), "a hundred samples say nothing of one in a thousand");
        assert!(curves[0].last().unwrap().1 > curves[1].last().unwrap().1, "higher is slower");
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert_eq!(draw("nothing", &[]), None);
        assert_eq!(draw("nothing", &[("a".to_owned(), Latency::default())]), None);
    }
}
