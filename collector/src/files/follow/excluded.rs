//! Why lines of the files are not published: the pod is excluded, or they cannot be read.

use bus::Fd;

use super::FileFollower;
use crate::files::tail::Tail;

impl FileFollower {
    /// Starts or stops dropping what is read. Nothing of an excluded pod takes a sequence number.
    pub(super) fn set_excluded(&mut self, is_excluded: bool) {
        if std::mem::replace(&mut self.is_excluded, is_excluded) || !is_excluded {
            return;
        }
        tracing::info!(stream = %self.stdout.id(), "pod excluded, its lines are dropped");
        for stream in [&mut self.stdout, &mut self.stderr] {
            // Lines that were read before are dropped with the rest.
            stream.cancel_resume_search();
        }
        if let Some(report) = self
            .report
            .as_mut()
            .filter(|_| !self.stdout.is_empty() || self.uses_stderr)
        {
            report.excluded();
        }
    }

    /// Drops the frames; reading does not return to them.
    pub(super) fn drop_frames(&mut self, tail: &mut Tail) {
        let frames = [Fd::Out, Fd::Err].map(|fd| self.assembler.frame(fd));
        let bytes = frames.iter().map(|frame| frame.len()).sum();
        let lines = frames
            .iter()
            .map(|frame| memchr::memchr_iter(b'\n', frame).count())
            .sum::<usize>();
        self.metrics.excluded_lines.inc_by(lines as u64);
        self.gap = None;
        self.assembler.clear();
        self.checkpointer.record_read(bytes, tail, &self.stdout, &self.stderr);
    }

    pub(super) fn failed(&mut self, reason: &str) {
        if let Some(report) = &mut self.report {
            report.failed(reason);
        }
    }

    pub(super) fn recovered(&mut self) {
        if let Some(report) = &mut self.report {
            report.recovered();
        }
    }
}
