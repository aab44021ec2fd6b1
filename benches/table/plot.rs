//! Two pictures as SVG: how the times of answers are spread, and how they grow with the store.

/// A line of a picture.
pub struct Sketch {
    pub name: String,
    /// Sorted times in nanoseconds.
    pub points: Vec<u32>,
}

const COLOURS: [&str; 6] = ["#1b6ca8", "#c8553d", "#3a7d44", "#7a4f9a", "#b8860b", "#4a4a4a"];
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 300.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

struct Picture {
    svg: String,
    x: (f64, f64),
    y: (f64, f64),
    names: usize,
}

impl Picture {
    fn new(title: &str, x: (f64, f64), y: (f64, f64)) -> Self {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{title}</text>\n"
        );
        Self { svg, x, y, names: 0 }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let part = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
        (
            LEFT + part(x, self.x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - part(y, self.y) * (HEIGHT - TOP - BOTTOM),
        )
    }

    fn add(&mut self, element: &str) {
        self.svg.push_str(element);
        self.svg.push('\n');
    }

    fn mark_x(&mut self, x: f64, text: &str) {
        let ((left, bottom), (_, top)) = (self.at(x, self.y.0), self.at(x, self.y.1));
        self.add(&format!("<path d=\"M{left:.1} {bottom:.1}V{top:.1}\" stroke=\"#dddddd\"/>"));
        self.add(&format!(
            "<text x=\"{left:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            bottom + 18.0
        ));
    }

    fn mark_y(&mut self, y: f64, text: &str) {
        let ((left, at), (right, _)) = (self.at(self.x.0, y), self.at(self.x.1, y));
        self.add(&format!("<path d=\"M{left:.1} {at:.1}H{right:.1}\" stroke=\"#dddddd\"/>"));
        self.add(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            left - 6.0,
            at + 4.0
        ));
    }

    fn line(&mut self, name: &str, points: &[(f64, f64)], colour: usize, dashed: bool) {
        let path: Vec<String> = points
            .iter()
            .map(|(x, y)| {
                let (x, y) = self.at(*x, *y);
                format!("{x:.1} {y:.1}")
            })
            .collect();
        let (colour, dash) =
            (COLOURS[colour % COLOURS.len()], if dashed { " stroke-dasharray=\"5 3\"" } else { "" });
        let stroke = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash}");
        self.add(&format!("<path d=\"M{}\" {stroke}/>", path.join("L")));
        let (x, y) = (WIDTH - RIGHT + 12.0, TOP + 12.0 + 18.0 * self.names as f64);
        self.names += 1;
        self.add(&format!("<path d=\"M{x:.1} {y:.1}h22\" {stroke}/>"));
        self.add(&format!("<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>", x + 28.0, y + 4.0));
    }

    fn done(mut self, x: &str) -> String {
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        self.add(&format!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x}</text>",
            HEIGHT - 10.0
        ));
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

/// 1, 10, 100 … between two figures.
fn decades(low: f64, high: f64) -> impl Iterator<Item = (f64, String)> {
    (low.floor() as i32..=high.ceil() as i32).map(|power| {
        let value = 10_f64.powi(power);
        (
            f64::from(power),
            if value < 1000.0 { format!("{value} µs") } else { format!("{} ms", value / 1000.0) },
        )
    })
}

/// The time within which a share of all answers came: the share on a scale that opens up the tail.
pub fn spreads(pairs: &[[Sketch; 2]]) -> String {
    let shares: Vec<f64> = (0..=60).map(|step| f64::from(step) / 20.0).collect();
    let time = |sketch: &Sketch, nines: f64| {
        let count = sketch.points.len();
        let share = 1.0 - 10_f64.powf(-nines);
        let at = ((count as f64 * share).ceil() as usize).clamp(1, count);
        (f64::from(sketch.points[at - 1]) / 1e3).max(0.1).log10()
    };
    let all = pairs.iter().flatten().flat_map(|sketch| shares.iter().map(move |share| time(sketch, *share)));
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    let title = "Time within which a share of the answers came";
    let mut picture = Picture::new(title, (0.0, 3.0), (low.floor(), high.ceil()));
    for (at, text) in decades(low, high) {
        picture.mark_y(at, &text);
    }
    for (at, text) in [(0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %")] {
        picture.mark_x(at, text);
    }
    for (colour, pair) in pairs.iter().enumerate() {
        for (sketch, dashed) in pair.iter().zip([false, true]) {
            let points: Vec<(f64, f64)> = shares.iter().map(|share| (*share, time(sketch, *share))).collect();
            picture.line(&sketch.name, &points, colour, dashed);
        }
    }
    picture.done("share of answers")
}

/// Median times by the number of stored secrets.
pub fn growth(sizes: &[usize], lines: &[(String, Vec<f64>)]) -> String {
    let size = |size: usize| (size as f64).log10();
    let all = lines.iter().flat_map(|(_, times)| times).map(|time| time.log10());
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    let ends = (size(sizes[0]), size(sizes[sizes.len() - 1]));
    let mut picture = Picture::new("Median time by secrets stored", ends, (low.floor(), high.ceil()));
    for (at, text) in decades(low, high) {
        picture.mark_y(at, &text);
    }
    for secrets in sizes {
        picture.mark_x(size(*secrets), &secrets.to_string());
    }
    for (colour, (name, times)) in lines.iter().enumerate() {
        let points: Vec<(f64, f64)> =
            sizes.iter().zip(times).map(|(at, time)| (size(*at), time.log10())).collect();
        picture.line(name, &points, colour, false);
    }
    picture.done("secrets stored")
}
