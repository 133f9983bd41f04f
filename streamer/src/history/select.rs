//! Selects which lines of a frame one tail receives.

use std::{ops::Range, sync::Arc};

use bus::cursor::StreamKey;
use bytes::BytesMut;
use system::{
    clock::{self, Instant},
    collections::{HashMap, HashSet},
};

use crate::{
    format::Format,
    frame::{Frame, rendered::Rendered},
    hub::{
        cached_history::CachedHistory,
        delivered::{Delivered, undelivered_before},
        ring::Ring,
    },
    line::{Line, Lines, NoticeLine, Run},
    query::filter::Filter,
};

/// The selection of one tail: its filter, and the lines that it has already received.
///
/// A tail that receives everything shares the rendering that the frame caches.
pub(crate) struct Selector {
    filter: Option<Arc<Filter>>,
    /// History that the tail received; live frames may repeat it.
    history: Option<Arc<CachedHistory>>,
    /// Streams whose live lines have been joined to `history`.
    joined: HashSet<StreamKey>,
    /// Where the first gap of each stream begins that a notice reported to this tail. Late lines in
    /// front of it are of gaps that were reported before the tail began, or that its history left out.
    first_gaps: HashMap<StreamKey, u64>,
    /// Lines delivered before the tail resumed from a cursor, and since.
    resumed: Option<Delivered>,
    /// Live frames created from then on repeat nothing of `history`.
    repeats_until: Instant,
    /// Live frames created from then on repeat nothing that the client had before it resumed.
    resumed_until: Instant,
    /// Number of lines to skip first.
    skip: u64,
    /// An L11 notice was sent. It covers every stream, so later gaps may be part of it.
    fell_behind: bool,
}

impl Selector {
    /// Creates the selection. Live frames created before `resumed_until` may repeat what was delivered
    /// before the tail resumed: the replica that issued the cursor may have been ahead of this one.
    pub(crate) fn new(filter: Option<Arc<Filter>>, resumed: Option<Delivered>, resumed_until: Instant) -> Self {
        Self {
            filter,
            history: None,
            joined: HashSet::default(),
            first_gaps: resumed.iter().flat_map(Delivered::first_gaps).collect(),
            resumed,
            repeats_until: clock::steady(),
            resumed_until,
            skip: 0,
            fell_behind: false,
        }
    }

    /// Drops, from live frames created before `until`, the lines of `history`.
    pub(crate) fn deduplicate(&mut self, history: Arc<CachedHistory>, until: Instant) {
        self.history = Some(history);
        self.repeats_until = until;
    }

    /// Records that an L11 notice was sent.
    pub(crate) fn set_fell_behind(&mut self) {
        self.fell_behind = true;
    }

    /// Returns whether the ring has passed everything that this tail received from elsewhere, so
    /// that the ring's cursor is valid for the tail.
    pub(crate) fn is_joined(&self, ring: &Ring) -> bool {
        let history = self.history.as_ref().map(|history| &history.segment.delivered);
        (history.is_none() && self.resumed.is_none()) || ring.covers(history, self.resumed.as_ref())
    }

    /// Skips this many more lines.
    pub(crate) fn skip(&mut self, lines: u64) {
        self.skip += lines;
    }

    /// Records that a live frame is not rendered: its lines are not missing in front of the next ones.
    pub(crate) fn pass_over(&mut self, frame: &Frame) {
        if self.history.is_some() {
            self.joined.extend(frame.streams());
        }
    }

    /// Returns whether single lines are filtered, which takes time.
    pub(crate) fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// Returns how many lines of a frame are selected. `live`: the frame may repeat history.
    ///
    /// Not for tails that resume from a cursor.
    pub(crate) fn count(&self, frame: &Frame, live: bool) -> u64 {
        let history = self.repeated_history(frame, live);
        if history.is_none() && self.filter.is_none() {
            return frame.lines();
        }
        let runs = frame.runs().map(|run| match run {
            Run::Lines(lines) => {
                let rest = history.map(|delivered| delivered.rest_of(&lines));
                self.selected(lines, rest.as_deref()).count() as u64
            }
            Run::Notice(_) => 0,
        });
        runs.sum()
    }

    /// Renders the selected lines of a frame. `None` if nothing is selected.
    pub(crate) fn render(&mut self, frame: &Frame, live: bool, format: Format) -> Option<Rendered> {
        if live && frame.created() >= self.repeats_until {
            self.history = None;
            self.joined = HashSet::default();
        }
        if live && frame.created() >= self.resumed_until {
            self.resumed = None;
        }
        let everything =
            self.filter.is_none() && self.resumed.is_none() && self.repeated_history(frame, live).is_none();
        if everything && self.skip == 0 && self.receives_all(frame, live) {
            return Some(frame.rendered(format).clone());
        }
        if everything && self.skip >= frame.lines() && frame.lines() > 0 {
            self.skip -= frame.lines();
            return None;
        }
        let mut out = BytesMut::new();
        for run in frame.runs() {
            match run {
                Run::Lines(lines) => self.render_lines(&mut out, frame, lines, live, format),
                Run::Notice(notice) => self.render_notice(&mut out, frame, notice, live, format),
            }
        }
        (!out.is_empty()).then(|| Rendered::from(out.freeze()))
    }

    fn render_lines(&mut self, out: &mut BytesMut, frame: &Frame, lines: Lines, live: bool, format: Format) {
        let rest = match &mut self.resumed {
            Some(resumed) => {
                let declared_before = resumed.next_of(lines.key);
                let (gap, rest) = resumed.resume_with_lines(&lines);
                let gap = gap.filter(|_| !self.fell_behind);
                if let Some(gap) =
                    gap.filter(|gap| self.filter.as_ref().is_none_or(|filter| filter.matches_notice(gap)))
                {
                    format.write_notice(out, frame.app(), &gap);
                }
                Some((rest, declared_before))
            }
            None => {
                self.render_gap_after_history(out, frame, &lines, live, format);
                self.repeated_history(frame, live)
                    .map(|delivered| (delivered.rest_of(&lines), delivered.next_of(lines.key)))
            }
        };
        let (rest, declared_before) = rest.unzip();
        let late_from = self.late_from(lines.key, live);
        let mut skip = self.skip;
        for mut line in self.selected(lines, rest.as_deref()) {
            // Lines that the history or the cursor lacks were declared as a gap there.
            line.late |= declared_before.is_some_and(|next| line.seq < next);
            if skip > 0 {
                skip -= 1;
            } else if !line.late || line.seq >= late_from {
                format.write_line(out, &line);
            }
        }
        self.skip = skip;
    }

    /// Renders the gap between history and a stream's first live lines. No event reports that gap,
    /// because the hub joined the stream after it.
    fn render_gap_after_history(
        &mut self,
        out: &mut BytesMut,
        frame: &Frame,
        lines: &Lines,
        live: bool,
        format: Format,
    ) {
        let Some(delivered) = self.repeated_history(frame, live) else {
            return;
        };
        if self.fell_behind || lines.late || self.joined.contains(&lines.key) {
            return;
        }
        let missing = delivered.missing_before(lines.key, lines.seq);
        self.joined.insert(lines.key);
        if let Some(missing) = &missing {
            self.record_gap(lines.key, missing);
        }
        let notice = missing.map(|missing| undelivered_before(lines, missing));
        if let Some(notice) =
            notice.filter(|notice| self.filter.as_ref().is_none_or(|filter| filter.matches_notice(notice)))
        {
            format.write_notice(out, frame.app(), &notice);
        }
    }

    fn render_notice(&mut self, out: &mut BytesMut, frame: &Frame, notice: &NoticeLine, live: bool, format: Format) {
        // Repeats can follow among the lines that are not skipped.
        let is_due = self.skip == 0 || notice.announces_repeats();
        let wanted = is_due && self.filter.as_ref().is_none_or(|filter| filter.matches_notice(notice));
        let unreported = match (&mut self.resumed, &notice.gap) {
            (Some(resumed), Some(gap)) => Some(resumed.resume_with_gap(gap)),
            (None, Some(gap)) => {
                self.joined.insert(gap.key);
                self.repeated_history(frame, live)
                    .map(|delivered| delivered.unreported_of(gap))
            }
            (_, None) => None,
        };
        if let Some(gap) = &notice.gap
            && self.skip == 0
        {
            let parts = unreported.clone().unwrap_or_else(|| vec![gap.seqs.clone()]);
            parts.iter().for_each(|seqs| self.record_gap(gap.key, seqs));
        }
        if !wanted {
            return;
        }
        let Some((unreported, gap)) = unreported.zip(notice.gap.as_ref()) else {
            return format.write_notice(out, frame.app(), notice);
        };
        for seqs in unreported {
            if seqs == gap.seqs {
                format.write_notice(out, frame.app(), notice);
            } else {
                format.write_notice(out, frame.app(), &notice.for_part(gap, seqs));
            }
        }
    }

    /// Records a gap that is reported to this tail. A filter that rejects its notice rejects its
    /// lines, too.
    fn record_gap(&mut self, key: StreamKey, seqs: &Range<u64>) {
        if !seqs.is_empty() {
            let first = self.first_gaps.entry(key).or_insert(seqs.start);
            *first = seqs.start.min(*first);
        }
    }

    /// Records the gaps of a frame. Returns whether the tail receives all lines of the frame.
    fn receives_all(&mut self, frame: &Frame, live: bool) -> bool {
        !frame.has_gaps()
            || frame.runs().all(|run| match run {
                Run::Lines(lines) => !lines.late || lines.seq >= self.late_from(lines.key, live),
                Run::Notice(notice) => {
                    if let Some(gap) = &notice.gap {
                        self.record_gap(gap.key, &gap.seqs);
                    }
                    true
                }
            })
    }

    /// Returns the sequence number from which on the tail receives late lines of a stream: no notice
    /// has reported a gap before that.
    fn late_from(&self, key: StreamKey, live: bool) -> u64 {
        // An L11 notice covers every gap. What a cursor lacks is delivered in any case.
        if !live || self.fell_behind || self.resumed.is_some() {
            return 0;
        }
        self.first_gaps.get(&key).copied().unwrap_or(u64::MAX)
    }

    /// Iterates over the lines that match the filter. `rest`: sequence numbers not delivered yet.
    fn selected<'a>(&'a self, lines: Lines<'a>, rest: Option<&'a [Range<u64>]>) -> impl Iterator<Item = Line<'a>> {
        let filter = self.filter.as_deref();
        let matches_stream = filter.is_none_or(|filter| filter.matches_stream(lines.metadata));
        let nothing = !matches_stream || rest.is_some_and(<[_]>::is_empty);
        let lines = (!nothing).then(|| lines.iter()).into_iter().flatten();
        lines
            .filter(move |line| rest.is_none_or(|rest| rest.iter().any(|seqs| seqs.contains(&line.seq))))
            .filter(move |line| filter.is_none_or(|filter| filter.matches(line)))
    }

    /// Returns the history that this frame may repeat.
    fn repeated_history(&self, frame: &Frame, live: bool) -> Option<&Delivered> {
        let history = self.history.as_ref()?;
        (live && frame.created() < self.repeats_until).then_some(&history.segment.delivered)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::{
        PublishTime, StreamMetadata,
        reassembly::{Event, EventKind},
    };

    use super::*;
    use crate::{
        frame::memory::MemoryBudget,
        history::sort::Sorter,
        hub::{cached_history::HistorySegment, ring::RingLimits},
        testing::{at, event, metadata},
    };

    /// A frame of this event.
    fn frame(event: Event) -> Arc<Frame> {
        let mut sorter = Sorter::new(None);
        sorter.push(StreamKey::of(&event.metadata.stream), event);
        sorter.into_frames(&"shop".parse().unwrap()).remove(0)
    }

    fn gap(metadata: &Arc<StreamMetadata>, seqs: Range<u64>) -> Event {
        Event {
            metadata: Arc::clone(metadata),
            seq: seqs.start,
            published: at(0),
            kind: EventKind::Gap {
                lines: seqs.end - seqs.start,
                gap: None,
            },
        }
    }

    fn late(metadata: &Arc<StreamMetadata>, seq: u64) -> Event {
        let mut line = event(metadata, seq, &[0], 0);
        if let EventKind::Lines { late, .. } = &mut line.kind {
            *late = true;
        }
        line
    }

    fn render(selector: &mut Selector, frame: &Frame, live: bool) -> String {
        let rendered = selector.render(frame, live, Format::Ndjson);
        rendered.map_or_else(String::new, |rendered| {
            String::from_utf8(rendered.plain().to_vec()).unwrap()
        })
    }

    #[test]
    fn a_tail_receives_late_lines_of_the_gaps_that_were_reported_to_it() {
        let web = metadata("web");
        let mut selector = Selector::new(None, None, clock::steady());
        let late_line = frame(late(&web, 3));
        assert_eq!(
            render(&mut selector, &late_line, true),
            "",
            "its gap was reported before the tail began"
        );
        assert!(render(&mut selector, &frame(gap(&web, 2..5)), true).contains("undelivered"));
        assert!(render(&mut selector, &late_line, true).contains(r#""late":true"#));
        assert_eq!(render(&mut selector, &frame(late(&web, 1)), true), "");
        assert_eq!(render(&mut selector, &frame(late(&metadata("job"), 3)), true), "");
        selector.set_fell_behind();
        assert!(!render(&mut selector, &frame(late(&web, 1)), true).is_empty());
    }

    #[test]
    fn live_lines_of_a_gap_that_history_left_out_are_left_out() {
        let web = metadata("web");
        let key = StreamKey::of(&web.stream);
        let mut delivered = Delivered::default();
        for event in [event(&web, 0, &[0, 1], 0), gap(&web, 2..4), event(&web, 4, &[4], 4)] {
            delivered.insert(key, &event);
        }
        let limits = RingLimits {
            own: 20_000,
            total: 1 << 20,
            fair: 20_000,
        };
        let ring = Ring::new(PublishTime(0), false, limits, MemoryBudget::default());
        let history = Arc::new(CachedHistory {
            segment: HistorySegment {
                delivered,
                ..HistorySegment::default()
            },
            position: ring.end(),
            created: clock::steady(),
        });
        for is_reported in [false, true] {
            let mut selector = Selector::new(None, None, clock::steady());
            selector.deduplicate(Arc::clone(&history), clock::steady() + Duration::from_secs(60));
            if is_reported {
                render(&mut selector, &frame(gap(&web, 2..4)), false);
            }
            let live = render(&mut selector, &frame(event(&web, 3, &[3, 4, 5], 5)), true);
            let late_lines = live.matches(r#""late":true"#).count();
            assert_eq!(late_lines, usize::from(is_reported), "{live}");
            assert_eq!(live.lines().count(), 1 + late_lines, "line 5 is new: {live}");
        }
    }
}
