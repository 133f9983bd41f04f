//! Shuffles deliveries, repeats some and recuts some, as a bus may do, from a seed.

use bus::{Batch, Content, Delivery, Reader, ReaderItem};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::reading::bounded;

/// Number of deliveries to pick from.
const WINDOW: usize = 40;

/// A reader whose deliveries are shuffled, partly repeated and partly split. None is lost.
pub struct Shuffled {
    reader: Reader,
    rng: StdRng,
    pool: Vec<Delivery>,
    /// An item that is not a delivery, returned after the pool.
    other: Option<ReaderItem>,
}

impl Shuffled {
    pub fn new(reader: Reader, seed: u64) -> Self {
        Self {
            reader,
            rng: StdRng::seed_from_u64(seed),
            pool: Vec::new(),
            other: None,
        }
    }

    /// The next item. An item that is not a delivery follows all earlier deliveries.
    pub async fn next(&mut self) -> ReaderItem {
        loop {
            while self.other.is_none() && self.pool.len() < WINDOW {
                match self.reader.try_next() {
                    Some(item) => self.push(item.unwrap()),
                    None => break,
                }
            }
            if let Some(picked) = self.pick() {
                return ReaderItem::Delivery(picked);
            }
            if let Some(other) = self.other.take() {
                return other;
            }
            let item = bounded("an item", self.reader.next()).await;
            self.push(item.expect("the reader continues").unwrap());
        }
    }

    fn push(&mut self, item: ReaderItem) {
        match item {
            ReaderItem::Delivery(delivery) => self.add(delivery),
            other => self.other = Some(other),
        }
    }

    fn add(&mut self, delivery: Delivery) {
        let pieces = if self.rng.random_bool(0.2) {
            recut(delivery, &mut self.rng)
        } else {
            vec![delivery]
        };
        for piece in pieces {
            if self.rng.random_bool(0.2) {
                self.pool.push(repeat(&piece));
            }
            self.pool.push(piece);
        }
    }

    fn pick(&mut self) -> Option<Delivery> {
        if self.pool.is_empty() {
            return None;
        }
        let at = self.rng.random_range(0..self.pool.len());
        Some(self.pool.swap_remove(at))
    }
}

fn repeat(delivery: &Delivery) -> Delivery {
    Delivery {
        batch: delivery.batch.clone(),
        published: delivery.published,
        ack: None,
    }
}

/// The same lines in two batches that overlap by one line if there are enough lines.
fn recut(delivery: Delivery, rng: &mut StdRng) -> Vec<Delivery> {
    let Content::Lines {
        data,
        lines,
        part: None,
    } = &delivery.batch.content
    else {
        return vec![delivery];
    };
    if *lines < 3 {
        return vec![delivery];
    }
    let cut = rng.random_range(1..*lines - 1);
    let (first, second) = (slice(data, 0, cut + 1), slice(data, cut, *lines));
    let piece = |seq: u64, data: Bytes, lines: u64| Delivery {
        batch: Batch {
            seq: delivery.batch.seq + seq,
            content: Content::Lines {
                data,
                lines,
                part: None,
            },
            ..delivery.batch.clone()
        },
        published: delivery.published,
        ack: None,
    };
    vec![piece(0, first, cut + 1), piece(cut, second, lines - cut)]
}

fn slice(data: &Bytes, from: u64, to: u64) -> Bytes {
    let ends: Vec<usize> = data
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    let offset = |line: u64| if line == 0 { 0 } else { ends[line as usize - 1] };
    data.slice(offset(from)..offset(to))
}
