//! Areas made ready to be asked: is a point in it, and how many metres is it to the border.
//!
//! Containment is exact, in whole numbers of ten-millionths of a degree. Distances are on a sphere, and said with what the ellipsoid
//! may differ. Edges lie in pieces of a few, each with its bounds, so that most of a long border is never looked at.

use assay_telemetry::position::Point;

use super::area::{Circle, Shape};
use super::geometry::{POLE_E7, Polygon, TURN_E7, Vertex};

/// An area that can be asked.
#[derive(Clone, Debug)]
pub(super) enum Outline {
    Circle(Circle),
    Polygons {
        polygons: Vec<Vec<Turn>>,
        /// What is a border and no mere cut along the antimeridian or at a pole.
        borders: Vec<Piece>,
    },
}

/// Where a point is in respect of an area.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reach {
    pub(super) is_inside: bool,
    /// Metres to the border.
    pub(super) metres: f64,
    /// By how many metres that may be too much.
    pub(super) slack: f64,
}

/// A ring.
#[derive(Clone, Debug)]
pub(super) struct Turn(Vec<Piece>);

/// A few edges that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    edges: Vec<(Vertex, Vertex)>,
    south: i64,
    north: i64,
    /// A ball around them.
    center: Vector,
    radius: f64,
}

impl Outline {
    pub(super) fn new(shape: &Shape) -> Self {
        match shape {
            Shape::Circle(circle) => Outline::Circle(*circle),
            Shape::Polygons(geometry) => {
                let polygons = geometry.polygons();
                let turns = |polygon: &Polygon| {
                    polygon.0.iter().map(|ring| Turn(pieces(&ring.edges().collect::<Vec<_>>()))).collect()
                };
                Outline::Polygons {
                    polygons: polygons.iter().map(turns).collect(),
                    borders: pieces(&borders(polygons)),
                }
            }
        }
    }

    pub(super) fn reach(&self, point: Point) -> Reach {
        match self {
            Outline::Circle(Circle { center, radius_m }) => {
                let (metres, radius) = (center.metres_to(point), f64::from(*radius_m));
                let slack = metres * SPHERE_ERROR + NUMERIC_METRES;
                Reach { is_inside: metres <= radius, metres: (radius - metres).abs(), slack }
            }
            Outline::Polygons { polygons, borders } => {
                let vertex = Vertex {
                    longitude_e7: i64::from(point.longitude_e7()),
                    // At a pole all longitudes are one, and 11 mm beside it they are not.
                    latitude_e7: i64::from(point.latitude_e7()).clamp(1 - POLE_E7, POLE_E7 - 1),
                };
                let is_in = |polygon: &Vec<Turn>| match polygon.split_first() {
                    Some((outer, holes)) => {
                        outer.encloses(vertex) && !holes.iter().any(|hole| hole.encloses(vertex))
                    }
                    None => false,
                };
                let metres = nearest(borders, Vector::of(vertex));
                let slack = metres * SPHERE_ERROR + NUMERIC_METRES;
                Reach { is_inside: polygons.iter().any(is_in), metres, slack }
            }
        }
    }
}

impl Turn {
    /// Whether the ring goes around a point, wherever its longitudes begin to count.
    fn encloses(&self, point: Vertex) -> bool {
        let is_crossed = |piece: &&Piece| (piece.south..piece.north).contains(&point.latitude_e7);
        let edges = || self.0.iter().filter(is_crossed).flat_map(|piece| &piece.edges);
        [-1, 0, 1].into_iter().any(|turns| {
            let longitude_e7 = point.longitude_e7 + turns * TURN_E7;
            edges().filter(|edge| is_east(**edge, Vertex { longitude_e7, ..point })).count() % 2 == 1
        })
    }
}

/// Whether an edge crosses the parallel of a point to the east of it.
fn is_east((from, to): (Vertex, Vertex), point: Vertex) -> bool {
    let is_above = |vertex: Vertex| vertex.latitude_e7 > point.latitude_e7;
    if is_above(from) == is_above(to) {
        return false;
    }
    let (south, north) = if is_above(to) { (from, to) } else { (to, from) };
    let wide = |a: i64, b: i64| i128::from(a) - i128::from(b);
    let turn = wide(north.longitude_e7, south.longitude_e7) * wide(point.latitude_e7, south.latitude_e7)
        - wide(north.latitude_e7, south.latitude_e7) * wide(point.longitude_e7, south.longitude_e7);
    turn > 0
}

/// The edges that are a border. RFC 7946 has polygons cut at the antimeridian; where the cut has the area on both sides it is none,
/// nor is an edge along a pole, which is a point.
fn borders(polygons: &[Polygon]) -> Vec<(Vertex, Vertex)> {
    let rings = || polygons.iter().flat_map(|polygon| &polygon.0);
    let is_cut = |(from, to): &(Vertex, Vertex)| {
        from.longitude_e7 == to.longitude_e7 && from.longitude_e7.rem_euclid(TURN_E7) == TURN_E7 / 2
    };
    let is_at_a_pole = |(from, to): &(Vertex, Vertex)| from.is_a_pole() && from.latitude_e7 == to.latitude_e7;
    let edges = || rings().flat_map(|ring| ring.edges()).filter(|edge| !is_at_a_pole(edge));
    // Each end of a cut is one end; where as many lie on one side as on the other, nothing ends.
    let mut ends: Vec<i64> =
        edges().filter(is_cut).flat_map(|(from, to)| [from.latitude_e7, to.latitude_e7]).collect();
    ends.sort_unstable();
    let along = |latitude_e7| Vertex { longitude_e7: TURN_E7 / 2, latitude_e7 };
    let left = ends.chunks_exact(2).filter_map(|pair| match pair {
        [south, north] if south != north => Some((along(*south), along(*north))),
        _ => None,
    });
    edges().filter(|edge| !is_cut(edge)).chain(left).collect()
}

fn pieces(edges: &[(Vertex, Vertex)]) -> Vec<Piece> {
    edges.chunks(PIECE_EDGES).filter_map(Piece::new).collect()
}

impl Piece {
    fn new(edges: &[(Vertex, Vertex)]) -> Option<Self> {
        let ends = || edges.iter().flat_map(|(from, to)| [*from, *to]);
        let latitudes = || ends().map(|end| end.latitude_e7);
        let center = Vector::of(edges.get(edges.len() / 2)?.0);
        // A point of an edge is nearer to a point of its chord than the edge sags.
        let reach = |(from, to): &(Vertex, Vertex)| {
            let far = center.to(Vector::of(*from)).max(center.to(Vector::of(*to)));
            far + sag(*from, *to)
        };
        let radius = edges.iter().map(reach).fold(0.0, f64::max);
        let (south, north) = (latitudes().min()?, latitudes().max()?);
        Some(Piece { edges: edges.to_vec(), south, north, center, radius })
    }

    /// No edge is nearer than this.
    fn at_least(&self, point: Vector) -> f64 {
        self.center.to(point) - self.radius
    }
}

/// Metres from a point to the nearest of the borders; half around the earth where there is none.
fn nearest(borders: &[Piece], point: Vector) -> f64 {
    let mut best = 2.0;
    let first = borders.iter().min_by(|a, b| a.at_least(point).total_cmp(&b.at_least(point)));
    for piece in first.into_iter().chain(borders) {
        if piece.at_least(point) < best {
            piece.edges.iter().for_each(|edge| nearer(*edge, point, &mut best));
        }
    }
    2.0 * EARTH_RADIUS_M * (best / 2.0).clamp(0.0, 1.0).asin()
}

/// Makes `best` the distance to an edge, if that is less; both through the earth, in its radii.
///
/// An edge that is straight in longitude and latitude is no arc of a great circle. It is held against its chord, from which it departs
/// no farther than [`sag`], and cut in halves for as long as that matters.
fn nearer((from, to): (Vertex, Vertex), point: Vector, best: &mut f64) {
    let flat = |vertex: Vertex| (vertex.longitude_e7 as f64, vertex.latitude_e7 as f64);
    let mut open = vec![(flat(from), flat(to))];
    while let Some((from, to)) = open.pop() {
        let (start, end) = (Vector::of_e7(from), Vector::of_e7(to));
        let (chord, sag) = (point.to_segment(start, end), sag_of(from, to));
        if chord - sag >= *best {
            continue;
        }
        *best = best.min(chord + sag).min(point.to(start)).min(point.to(end));
        if sag > CLOSE_ENOUGH.max(*best * FAR_ENOUGH) {
            let middle = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
            open.extend([(from, middle), (middle, to)]);
        }
    }
}

fn sag(from: Vertex, to: Vertex) -> f64 {
    let flat = |vertex: Vertex| (vertex.longitude_e7 as f64, vertex.latitude_e7 as f64);
    sag_of(flat(from), flat(to))
}

/// How far an edge departs from its chord, in earth radii: a curve does by an eighth of its second derivative, which is here no more
/// than the square of what longitude and latitude change together.
fn sag_of(from: (f64, f64), to: (f64, f64)) -> f64 {
    let change = ((to.0 - from.0).abs() + (to.1 - from.1).abs()) * E7_RADIANS;
    change * change / 8.0
}

/// A point of the unit sphere, or in it.
#[derive(Clone, Copy, Debug)]
struct Vector([f64; 3]);

impl Vector {
    fn of(vertex: Vertex) -> Self {
        Vector::of_e7((vertex.longitude_e7 as f64, vertex.latitude_e7 as f64))
    }

    fn of_e7((longitude, latitude): (f64, f64)) -> Self {
        let (longitude, latitude) = (longitude * E7_RADIANS, latitude * E7_RADIANS);
        Vector([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()])
    }

    fn minus(self, other: Vector) -> Vector {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        Vector([a - x, b - y, c - z])
    }

    fn times(self, other: Vector) -> f64 {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        a * x + b * y + c * z
    }

    /// The distance to another, straight through.
    fn to(self, other: Vector) -> f64 {
        let between = self.minus(other);
        between.times(between).sqrt()
    }

    /// The distance to the nearest point of a straight line between two.
    fn to_segment(self, start: Vector, end: Vector) -> f64 {
        let (along, out) = (end.minus(start), self.minus(start));
        let length = along.times(along);
        let part = if length > 0.0 { (out.times(along) / length).clamp(0.0, 1.0) } else { 0.0 };
        let ([x, y, z], [a, b, c]) = (start.0, along.0);
        self.to(Vector([x + part * a, y + part * b, z + part * c]))
    }
}

/// IUGG's mean radius of WGS 84.
const EARTH_RADIUS_M: f64 = 6_371_008.8;
const E7_RADIANS: f64 = std::f64::consts::PI / 1.8e9;
/// The ellipsoid's radii of curvature are from 0.56 % less to 0.45 % more than the sphere's; twice [`FAR_ENOUGH`] comes to it.
const SPHERE_ERROR: f64 = 0.0063;
/// What rounding and [`CLOSE_ENOUGH`] come to, and more.
const NUMERIC_METRES: f64 = 0.05;
/// A centimetre in earth radii.
const CLOSE_ENOUGH: f64 = 1.6e-9;
/// Of what is far away, in parts of its distance.
const FAR_ENOUGH: f64 = 0.0003;
/// Enough that bounds are looked at seldom, and few that edges are.
const PIECE_EDGES: usize = 16;
