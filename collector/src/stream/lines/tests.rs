//! Framing does not change the lines, and a resume point is found or reported as missing.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    anchor::ResumePoint,
    stream::resume_search::{Extent, Unmatched},
};

/// A log: times in nanoseconds since 1970, and texts.
#[derive(Clone, Debug)]
struct Log(Vec<(i64, String)>);

/// 2026-11-23T07:00:00Z.
const BASE: i64 = 1_795_417_200_000_000_000;

impl Log {
    /// Returns the log as the API prints it.
    fn printed(&self) -> Vec<u8> {
        let lines = self.0.iter();
        let lines = lines.map(|(time, text)| format!("{} {text}\n", bus::Timestamp(*time)));
        lines.collect::<String>().into_bytes()
    }

    /// Returns the resume point after this many lines.
    fn resume_point(&self, lines: usize) -> Option<ResumePoint> {
        let read = ReadResult::of(&Log(self.0[..lines].to_vec()).printed(), &[], None);
        let anchor = read.slices.last()?.end;
        Some(ResumePoint {
            seq_end: lines as u64,
            anchor,
        })
    }
}

/// The lines of a response.
struct ReadResult {
    search_result: Option<SearchResult>,
    slices: Vec<Slice>,
}

impl ReadResult {
    /// Reads bytes in frames that end at these offsets.
    fn of(bytes: &[u8], ends: &[usize], search: Option<ResumeSearch>) -> Self {
        let mut lines = Lines::default();
        lines.start_response(search);
        let mut ends: Vec<usize> = ends.iter().map(|end| end % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let (mut from, mut search_result, mut slices) = (0, None, Vec::new());
        for (n, end) in ends.into_iter().enumerate() {
            search_result = search_result.or(lines.push(&bytes[from..end]));
            from = end;
            if n % 2 == 0 {
                slices.extend(lines.next_slice());
            }
        }
        search_result = search_result.or(lines.end_search());
        slices.extend(std::iter::from_fn(|| lines.next_slice()));
        assert_eq!(lines.buffered_bytes(), lines.rest().len());
        Self { search_result, slices }
    }

    fn bytes(&self) -> Vec<u8> {
        self.slices.iter().flat_map(|slice| slice.data.to_vec()).collect()
    }

    fn lines(&self) -> u64 {
        self.slices.iter().map(|slice| slice.lines).sum()
    }

    /// Returns what does not depend on the framing.
    fn parts(&self) -> Vec<(Vec<u8>, Option<Part>)> {
        let each = |slice: &Slice| {
            let part = slice.part;
            slice
                .data
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| (line.to_vec(), part))
                .collect::<Vec<_>>()
        };
        self.slices.iter().flat_map(each).collect()
    }
}

/// Generates logs like bursts: few distinct times and texts.
fn logs() -> impl Strategy<Value = Log> {
    let steps = [0, 0, 0, 1, 400_000_000, 1_700_000_000];
    vec((prop::sample::select(steps.to_vec()), "[ab]{0,2}"), 1..40).prop_map(|lines| {
        let mut time = BASE;
        Log(lines
            .into_iter()
            .map(|(advance, text)| {
                time += advance;
                (time, text)
            })
            .collect())
    })
}

fn text_of(lines: &[(i64, String)]) -> Vec<u8> {
    Log(lines.to_vec()).printed()
}

proptest! {
    #[test]
    fn framing_does_not_change_lines(log in logs(), ends in vec(any::<usize>(), 0..20)) {
        let bytes = log.printed();
        let read = ReadResult::of(&bytes, &ends, None);
        prop_assert_eq!(read.bytes(), bytes);
        prop_assert_eq!(read.lines(), log.0.len() as u64);
        // The anchor at the end of a slice does not depend on where slices end.
        let mut seq = 0;
        for slice in &read.slices {
            seq += slice.lines;
            prop_assert_eq!(log.resume_point(usize::try_from(seq).unwrap()).unwrap().anchor, slice.end);
        }
    }

    #[test]
    fn a_resume_point_is_found_among_equal_lines(log in logs(), at in any::<prop::sample::Index>(), ends in vec(any::<usize>(), 0..20)) {
        let confirmed = 1 + at.index(log.0.len());
        let resume_point = log.resume_point(confirmed);
        let search = ResumeSearch::new(Extent::File, resume_point, None);
        let read = ReadResult::of(&log.printed(), &ends, search);
        prop_assert_eq!(read.search_result, Some(SearchResult::Confirmed));
        prop_assert_eq!(read.bytes(), text_of(&log.0[confirmed..]));
        // Later anchors match as well.
        if let Some(last) = read.slices.last() {
            prop_assert_eq!(last.end, log.resume_point(log.0.len()).unwrap().anchor);
        }
    }

    #[test]
    fn a_file_that_starts_late_is_a_counted_or_unknown_gap(
        log in logs(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), c in any::<prop::sample::Index>(),
        ends in vec(any::<usize>(), 0..20),
    ) {
        // A file that starts among lines of equal time and text is indistinguishable from one that
        // starts before them.
        let log = Log(log.0.into_iter().zip(0..).map(|((time, text), n)| (time, format!("{text} {n}"))).collect());
        let confirmed = a.index(log.0.len() + 1);
        let sent = confirmed + b.index(log.0.len() + 1 - confirmed);
        let starts = c.index(log.0.len());
        let (confirmed_point, sent_point) = (log.resume_point(confirmed), log.resume_point(sent));
        let file = Log(log.0[starts..].to_vec());
        let Some(search) = ResumeSearch::new(Extent::File, confirmed_point, sent_point) else { return Ok(()) };
        let read = ReadResult::of(&file.printed(), &ends, Some(search));
        let line_after = |lines: u64| starts + usize::try_from(lines).unwrap();
        match read.search_result.unwrap() {
            SearchResult::Confirmed => prop_assert_eq!(read.bytes(), text_of(&log.0[confirmed..])),
            SearchResult::Unconfirmed { held } => {
                prop_assert!(starts >= confirmed);
                prop_assert_eq!(line_after(held), sent);
                prop_assert_eq!(read.bytes(), text_of(&log.0[starts..]));
            }
            // Never if the file contains the line: that would repeat lines under other numbers.
            SearchResult::NotFound(Unmatched { candidate: None, .. }) => prop_assert!(starts >= confirmed && starts > 0),
            SearchResult::NotFound(Unmatched { candidate: Some(lines), .. }) => {
                prop_assert_eq!(line_after(lines), confirmed);
                let search = ResumeSearch::new(Extent::Counted(lines), confirmed_point, None);
                let read = ReadResult::of(&file.printed(), &ends, search);
                prop_assert_eq!(read.search_result, Some(SearchResult::Confirmed));
                prop_assert_eq!(read.bytes(), text_of(&log.0[confirmed..]));
            }
            SearchResult::Located { .. } => prop_assert!(false),
        }
    }

    #[test]
    fn the_end_of_a_log_contains_the_resume_point_or_does_not_pretend_to(
        log in logs(), at in any::<prop::sample::Index>(), tail in 1..20usize, ends in vec(any::<usize>(), 0..20),
    ) {
        let confirmed = 1 + at.index(log.0.len());
        let end = log.0[log.0.len().saturating_sub(tail)..].to_vec();
        let search = ResumeSearch::new(Extent::Tail(tail as u64), log.resume_point(confirmed), None);
        let read = ReadResult::of(&text_of(&end), &ends, search);
        match read.search_result.unwrap() {
            SearchResult::Confirmed => prop_assert_eq!(read.bytes(), text_of(&log.0[confirmed..])),
            _ => {
                // The line is not there, or lines with its time may precede the end.
                let is_first_run = log.0[confirmed - 1].0 == end[0].0;
                prop_assert!(confirmed + tail <= log.0.len() || is_first_run);
            }
        }
    }

    #[test]
    fn the_position_of_a_line_in_its_file_is_counted(log in logs(), at in any::<prop::sample::Index>(), starts in any::<prop::sample::Index>()) {
        let log = Log(log.0.into_iter().zip(0..).map(|((time, text), n)| (time, format!("{text} {n}"))).collect());
        let (confirmed, starts) = (1 + at.index(log.0.len()), starts.index(log.0.len()));
        let bytes = text_of(&log.0[starts..]);
        let read = ReadResult::of(&bytes, &[], ResumeSearch::locating(log.resume_point(confirmed), None));
        let expected = (confirmed > starts).then(|| (confirmed - starts) as u64);
        let found = match read.search_result.unwrap() {
            SearchResult::Located { lines, .. } => lines,
            _ => None,
        };
        prop_assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn long_lines_are_split_consistently_and_found_by_part(
        sizes in vec(prop::sample::select(vec![0, 10, MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES - 7]), 1..4),
        ends in vec(any::<usize>(), 0..40), at in any::<prop::sample::Index>(), wide in any::<bool>(),
    ) {
        let mut text = Vec::new();
        for (size, n) in sizes.iter().zip(0..) {
            let filling = if wide { "\u{20ac}".repeat(size / 3) } else { "x".repeat(*size) };
            text.extend_from_slice(format!("{} {filling}\n", bus::Timestamp(BASE + n)).as_bytes());
        }
        let whole = ReadResult::of(&text, &[], None);
        let framed = ReadResult::of(&text, &ends, None);
        prop_assert!(whole.parts() == framed.parts());
        for (line, part) in whole.parts() {
            let (_, content) = bus::Timestamp::split_line(&line).unwrap();
            prop_assert!(content.len() <= MAX_LINE_BYTES + 1);
            prop_assert!(std::str::from_utf8(content).is_ok());
            prop_assert!(part.is_some() || content.len() > 3 * MAX_LINE_BYTES || sizes.contains(&(content.len() - 1)) || wide);
        }
        // A slice may end within a split line; numbering continues there.
        let slice = at.index(framed.slices.len());
        let confirmed: u64 = framed.slices[..=slice].iter().map(|slice| slice.lines).sum();
        let resume_point = ResumePoint { seq_end: confirmed, anchor: framed.slices[slice].end };
        let search = ResumeSearch::new(Extent::File, Some(resume_point), None);
        let read_again = ReadResult::of(&text, &[], search);
        prop_assert_eq!(read_again.search_result, Some(SearchResult::Confirmed));
        prop_assert!(read_again.parts() == whole.parts()[usize::try_from(confirmed).unwrap()..]);
    }
}

#[test]
fn an_endless_line_is_buffered_in_parts() {
    let mut lines = Lines::default();
    lines.push(format!("{} ", bus::Timestamp(BASE)).as_bytes());
    for _ in 0..100 {
        lines.push(&[b'x'; 32 * 1024]);
        while let Some(slice) = lines.next_slice() {
            assert_eq!((slice.lines, slice.part), (1, Some(Part::More)));
        }
        assert!(lines.buffered_bytes() <= MAX_LINE_BYTES + 32 * 1024);
    }
}

#[test]
fn a_clock_that_stepped_back_is_not_a_gap() {
    let times = [5_500_000_000, 4_200_000_000, 4_300_000_000, 5_700_000_000];
    let log = Log(times
        .iter()
        .zip(0..)
        .map(|(time, n)| (BASE + time, format!("{n}")))
        .collect());
    for confirmed in 1..=4 {
        let search = ResumeSearch::new(Extent::File, log.resume_point(confirmed), None);
        let read = ReadResult::of(&log.printed(), &[], search);
        assert_eq!(read.search_result, Some(SearchResult::Confirmed));
        assert_eq!(read.bytes(), text_of(&log.0[confirmed..]));
    }
}

#[test]
fn the_data_held_by_a_search_is_bounded() {
    let point = |seq_end, time| {
        Some(ResumePoint {
            seq_end,
            anchor: Anchor {
                time,
                high: time,
                ordinal: 1,
                hash: 0,
            },
        })
    };
    let line = format!("{} {}\n", bus::Timestamp(BASE + 1), "x".repeat(1000));
    let mut lines = Lines::default();
    lines.start_response(ResumeSearch::new(Extent::File, point(9, BASE), point(9000, BASE)));
    for _ in 0..4000 {
        assert_eq!(lines.push(line.as_bytes()), None);
        assert!(lines.buffered_bytes() <= MAX_UNDECIDED_BYTES + line.len());
    }
    assert!(matches!(lines.end_search(), Some(SearchResult::NotFound(_))));
    assert_eq!(lines.buffered_lines(), 0, "more lines than there are numbers");
}
