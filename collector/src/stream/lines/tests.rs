//! Framing does not change the lines, and a resume point is found or reported as missing.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::anchor::ResumePoint;

/// A log: times in nanoseconds since 1970, and texts.
#[derive(Clone, Debug)]
struct Log(Vec<(i64, String)>);

/// 2026-11-23T07:00:00Z.
const BASE: i64 = 1_795_417_200_000_000_000;

impl Log {
    /// Returns the log as the API prints it from a whole second on, with the sequence numbers of
    /// the lines.
    fn printed_from(&self, since: Option<i64>) -> (Vec<u8>, Vec<u64>) {
        let second = since.map(|time| bus::Timestamp(time).floor_second().0);
        let kept = self
            .0
            .iter()
            .zip(0u64..)
            .filter(|((time, _), _)| second.is_none_or(|second| *time >= second));
        let (mut bytes, mut seqs) = (Vec::new(), Vec::new());
        for ((time, text), seq) in kept {
            bytes.extend_from_slice(format!("{} {text}\n", bus::Timestamp(*time)).as_bytes());
            seqs.push(seq);
        }
        (bytes, seqs)
    }

    /// Returns the resume point after this many lines.
    fn resume_point(&self, lines: usize) -> Option<ResumePoint> {
        let (bytes, _) = Log(self.0[..lines].to_vec()).printed_from(None);
        let read = ReadResult::of(&bytes, &[], None, false);
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
    fn of(bytes: &[u8], ends: &[usize], search: Option<ResumeSearch>, from_time: bool) -> Self {
        let mut lines = Lines::default();
        lines.start_response(search, from_time);
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
    Log(lines.to_vec()).printed_from(None).0
}

proptest! {
    #[test]
    fn framing_does_not_change_lines(log in logs(), ends in vec(any::<usize>(), 0..20)) {
        let (bytes, seqs) = log.printed_from(None);
        let read = ReadResult::of(&bytes, &ends, None, false);
        prop_assert_eq!(read.bytes(), bytes);
        prop_assert_eq!(read.lines(), seqs.len() as u64);
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
        let (bytes, _) = log.printed_from(resume_point.map(|resume_point| resume_point.anchor.time));
        let read = ReadResult::of(&bytes, &ends, ResumeSearch::new(resume_point, None), true);
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
        let (bytes, numbers) = file.printed_from(confirmed_point.map(|resume_point| resume_point.anchor.time));
        let Some(search) = ResumeSearch::new(confirmed_point, sent_point) else { return Ok(()) };
        let read = ReadResult::of(&bytes, &ends, Some(search), confirmed_point.is_some());
        let first_read = starts + numbers.first().map_or(0, |first| usize::try_from(*first).unwrap());
        match read.search_result.unwrap() {
            SearchResult::Confirmed => prop_assert_eq!(read.bytes(), text_of(&log.0[confirmed..])),
            SearchResult::Unconfirmed { held, .. } => {
                let first = sent - usize::try_from(held).unwrap();
                prop_assert!(first >= confirmed);
                prop_assert_eq!(read.bytes(), text_of(&log.0[first..]));
            }
            // Never if the whole file exists: that would repeat lines under other numbers.
            SearchResult::NotFound { .. } => {
                prop_assert!(first_read > 0 && starts > 0);
                prop_assert!(read.bytes().ends_with(&text_of(&log.0[first_read.max(confirmed)..])) || read.lines() == 0);
            }
        }
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
        let whole = ReadResult::of(&text, &[], None, false);
        let framed = ReadResult::of(&text, &ends, None, false);
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
        let read_again = ReadResult::of(&text, &[], ResumeSearch::new(Some(resume_point), None), true);
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
fn text_without_a_timestamp_is_skipped_only_before_the_first_timestamp() {
    let text = format!("BBBB\n{0} a\nCCCC\n{0} b\n", bus::Timestamp(BASE));
    let since = ReadResult::of(text.as_bytes(), &[3], None, true);
    assert_eq!((since.lines(), since.bytes()), (3, text.as_bytes()[5..].to_vec()));
    let all = ReadResult::of(text.as_bytes(), &[3], None, false);
    assert_eq!((all.lines(), all.bytes()), (4, text.into_bytes()));
}

#[test]
fn a_long_remainder_of_a_line_already_read_is_skipped() {
    let rest = "B".repeat(3 * MAX_LINE_BYTES);
    let text = format!("{rest}\n{} a\n", bus::Timestamp(BASE));
    let read = ReadResult::of(
        text.as_bytes(),
        &[5, MAX_LINE_BYTES + 9, 2 * MAX_LINE_BYTES],
        None,
        true,
    );
    assert_eq!(read.bytes(), text.as_bytes()[rest.len() + 1..]);
}

#[test]
fn a_clock_that_stepped_back_is_not_a_gap() {
    let times = [5_500_000_000, 4_200_000_000, 4_300_000_000, 5_700_000_000];
    let log = Log(times
        .iter()
        .zip(0..)
        .map(|(time, n)| (BASE + time, format!("{n}")))
        .collect());
    for confirmed in 1..=2 {
        let resume_point = log.resume_point(confirmed);
        let (bytes, seqs) = log.printed_from(resume_point.map(|resume_point| resume_point.anchor.time));
        let read = ReadResult::of(&bytes, &[], ResumeSearch::new(resume_point, None), true);
        assert_eq!(read.search_result, Some(SearchResult::Confirmed));
        assert_eq!(
            read.lines(),
            seqs.iter().filter(|seq| **seq >= confirmed as u64).count() as u64
        );
    }
}

#[test]
fn the_data_held_by_a_search_is_bounded() {
    // The clock stepped back by a day before the resume point, so every line may precede it.
    let resume_point = ResumePoint {
        seq_end: 9,
        anchor: Anchor {
            time: BASE,
            high: BASE + 86_400_000_000_000,
            ordinal: 1,
            hash: 0,
        },
    };
    let line = format!("{} {}\n", bus::Timestamp(BASE + 1), "x".repeat(1000));
    let mut lines = Lines::default();
    lines.start_response(ResumeSearch::new(Some(resume_point), None), true);
    let decided = (0..4000).find_map(|_| lines.push(line.as_bytes()));
    assert!(matches!(decided, Some(SearchResult::NotFound { .. })));
}
