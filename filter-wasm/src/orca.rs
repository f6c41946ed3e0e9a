//! ORCA load reports on responses, all forms: `endpoint-load-metrics` with the prefix `TEXT`, `JSON` or `BIN`, and
//! `endpoint-load-metrics-bin`. Read to the letter: a report that breaks a rule is dropped whole.
//! Sources: Envoy's `orca_parser`, cncf/xds `orca_load_report.proto`.

mod proto;
mod text;

use kaeru_protocol::limits::LOAD_VALUES_MAX;

/// Bytes of one report that are looked at: 16 values of at most 250 bytes.
const REPORT_BYTES_MAX: usize = 4_096;

/// The values of one report, by their flat names (`cpu_utilization`, `named_metrics.queue_depth`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// At most [`LOAD_VALUES_MAX`]; what is beyond is left out.
    pub values: Vec<(Box<str>, f64)>,
    /// The sum of `request_cost`.
    pub cost: Option<f64>,
}

/// Why a report says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Load {
    /// Reads a report from the two headers; the binary one wins.
    pub fn read(text: Option<&[u8]>, binary: Option<&[u8]>) -> Option<Result<Self, Malformed>> {
        if let Some(binary) = binary {
            return Some(within_limit(binary).and_then(proto::read));
        }
        Some(within_limit(text?).and_then(|value| {
            let (form, payload) = value.split_at_checked(5).ok_or(Malformed)?;
            match form {
                b"TEXT " => text::read_text(payload),
                b"JSON " => text::read_json(payload),
                [b'B', b'I', b'N', b' ', first] => proto::read(&[&[*first], payload].concat()),
                _ => Err(Malformed),
            }
        }))
    }

    /// Takes one value: finite, not negative, a name once.
    fn take(&mut self, name: &str, value: f64) -> Result<(), Malformed> {
        let known = match name {
            "cpu_utilization" | "application_utilization" | "rps_fractional" | "eps" | "rps" => {
                true
            }
            "mem_utilization" => value <= 1.0,
            _ => match name.split_once('.') {
                Some(("utilization", key)) => !key.is_empty() && value <= 1.0,
                Some(("named_metrics" | "request_cost", key)) => !key.is_empty(),
                _ => false,
            },
        };
        let twice = self.values.iter().any(|(taken, _)| **taken == *name);
        if !known || twice || !value.is_finite() || value < 0.0 {
            return Err(Malformed);
        }
        if name.starts_with("request_cost.") {
            let sum = self.cost.unwrap_or(0.0) + value;
            if !sum.is_finite() {
                return Err(Malformed);
            }
            self.cost = Some(sum);
        } else if self.values.len() < LOAD_VALUES_MAX {
            self.values.push((name.into(), value));
        }
        Ok(())
    }
}

fn within_limit(value: &[u8]) -> Result<&[u8], Malformed> {
    if value.len() <= REPORT_BYTES_MAX {
        Ok(value)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests;
