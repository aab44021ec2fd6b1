//! What is made of measured times.

/// One run of the client: the whole, and each answer, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub whole: u64,
    pub each: Vec<u32>,
}

impl Run {
    /// As the client writes it.
    pub fn parse(bytes: &[u8]) -> Self {
        let (whole, rest) = bytes.split_first_chunk::<8>().expect("the client's figures");
        let (each, rest) = rest.as_chunks::<4>();
        assert!(rest.is_empty() && !each.is_empty(), "the client's figures are cut");
        let mut each: Vec<u32> = each.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect();
        each.sort_unstable();
        Self { whole: u64::from_ne_bytes(*whole), each }
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.each.len() as f64 * 1e9 / self.whole as f64
    }

    /// The time within which `share` of all answers came, in microseconds.
    pub fn within(&self, share: f64) -> f64 {
        let at = ((self.each.len() as f64 * share).ceil() as usize).clamp(1, self.each.len());
        f64::from(self.each[at - 1]) / 1e3
    }

    /// All answers of several runs.
    pub fn joined(runs: &[Self]) -> Self {
        let mut each: Vec<u32> = runs.iter().flat_map(|run| run.each.iter().copied()).collect();
        each.sort_unstable();
        Self { whole: runs.iter().map(|run| run.whole).sum(), each }
    }
}

pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// What a ratio has to be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing: it follows from the disk.
    None,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: String,
    pub ours: String,
    pub floor: String,
    pub ratio: f64,
    pub target: Target,
    /// p50 and p99 of ours in microseconds.
    pub spread: Option<(f64, f64)>,
}

impl Row {
    pub fn is_met(&self) -> bool {
        match self.target {
            Target::AtLeast(least) => self.ratio >= least,
            Target::AtMost(most) => self.ratio <= most,
            Target::None => true,
        }
    }
}

/// Three digits that count.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => {
            let whole = format!("{figure:.0}");
            let from_end = |at: usize| whole.len() - at;
            let grouped = whole.char_indices().map(|(at, digit)| {
                if at > 0 && from_end(at) % 3 == 0 { format!(",{digit}") } else { digit.to_string() }
            });
            grouped.collect()
        }
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
