//! Turns entries of the container runtime into what the log API would print: one frame per output,
//! with split lines joined.

use bus::{Fd, Timestamp};

use super::cri::Parser;

/// Assembles the lines of a container's file, separately for each output.
///
/// A line that the runtime wrote in several entries becomes one, with the time of the first,
/// whatever the other output wrote in between. Does not allocate per line. *Bound*: the data read
/// since the frames were cleared.
#[derive(Debug, Default)]
pub struct LineAssembler {
    parser: Parser,
    out: OutputBuffer,
    err: OutputBuffer,
    first_time: Option<Timestamp>,
    unrecognized: u64,
    /// The last piece had no newline and is not in the runtime's format.
    in_unrecognized: bool,
}

#[derive(Debug, Default)]
struct OutputBuffer {
    frame: Vec<u8>,
    /// The last entry was tagged `P`: the frame ends within a line.
    is_open: bool,
}

impl LineAssembler {
    /// Adds complete lines, each ending in a newline.
    pub fn lines(&mut self, data: &[u8]) {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', data) {
            self.line(&data[start..newline]);
            start = newline + 1;
        }
    }

    /// Adds one line, without its newline. A line that is not in the runtime's format counts as
    /// content of standard output, unchanged.
    #[inline]
    pub fn line(&mut self, line: &[u8]) {
        let entry = match self.parser.parse(line) {
            Some(entry) if !self.in_unrecognized => entry,
            _ => return self.unrecognized(line, true),
        };
        let output = match entry.fd {
            Fd::Out => &mut self.out,
            Fd::Err => &mut self.err,
        };
        if !output.is_open {
            entry.put_time(&mut output.frame);
        }
        output.frame.extend_from_slice(entry.text);
        output.is_open = entry.is_partial;
        if !entry.is_partial {
            output.frame.push(b'\n');
        }
        if self.first_time.is_none() {
            self.first_time = entry.timestamp();
        }
    }

    /// Adds part of a line that is not in the runtime's format; `is_ended`: a newline follows.
    #[cold]
    pub fn unrecognized(&mut self, piece: &[u8], is_ended: bool) {
        if !self.in_unrecognized {
            self.unrecognized += 1;
            self.out.close();
        }
        self.out.frame.extend_from_slice(piece);
        self.out.is_open = !is_ended;
        self.in_unrecognized = !is_ended;
        if is_ended {
            self.out.frame.push(b'\n');
        }
    }

    /// Terminates open lines that will not be continued.
    pub fn close(&mut self) {
        self.out.close();
        self.err.close();
        self.in_unrecognized = false;
    }

    /// Returns whether a line is open on either output; resuming must start before it.
    pub fn is_open(&self) -> bool {
        self.out.is_open || self.err.is_open
    }

    /// Returns an output's data since the frames were cleared.
    pub fn frame(&self, fd: Fd) -> &[u8] {
        match fd {
            Fd::Out => &self.out.frame,
            Fd::Err => &self.err.frame,
        }
    }

    /// Returns the time of the first entry since the frames were cleared.
    pub fn first_time(&self) -> Option<Timestamp> {
        self.first_time
    }

    /// Returns the number of lines not in the runtime's format since the frames were cleared.
    pub fn unrecognized_lines(&self) -> u64 {
        self.unrecognized
    }

    /// Starts new frames; open lines stay open.
    pub fn clear(&mut self) {
        self.out.frame.clear();
        self.err.frame.clear();
        self.first_time = None;
        self.unrecognized = 0;
    }

    /// Releases memory after a burst. Call it with cleared frames when there is nothing to read.
    pub fn shrink(&mut self) {
        self.out.frame.shrink_to(IDLE_BYTES);
        self.err.frame.shrink_to(IDLE_BYTES);
    }
}

/// Capacity that an idle container keeps.
const IDLE_BYTES: usize = 4 << 10;

impl OutputBuffer {
    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.frame.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(lines: &str) -> (String, String) {
        let mut assembler = LineAssembler::default();
        assembler.lines(lines.as_bytes());
        assembler.close();
        let frame = |fd| String::from_utf8(assembler.frame(fd).to_vec()).unwrap();
        (frame(Fd::Out), frame(Fd::Err))
    }

    #[test]
    fn a_split_line_is_joined_whatever_the_other_output_wrote() {
        let (out, err) = frames(
            "2026-11-23T08:46:44.1Z stdout P AA\n\
             2026-11-23T08:46:44.2Z stderr F err1\n\
             2026-11-23T08:46:44.3Z stdout P BB\n\
             2026-11-23T08:46:44.4Z stderr P err2\n\
             2026-11-23T08:46:44.5Z stdout F END\n\
             2026-11-23T08:46:44.6Z stdout F next\n",
        );
        assert_eq!(
            out,
            "2026-11-23T08:46:44.100000000Z AABBEND\n2026-11-23T08:46:44.600000000Z next\n"
        );
        assert_eq!(
            err,
            "2026-11-23T08:46:44.200000000Z err1\n2026-11-23T08:46:44.400000000Z err2\n"
        );
    }

    #[test]
    fn unrecognized_lines_are_content_and_counted() {
        let mut assembler = LineAssembler::default();
        assembler.lines(b"2026-11-23T08:46:44.1Z stdout P AA\n{\"log\":\"x\"}\n2026-11-23T08:46:44.5Z stdout F BB\n");
        assembler.unrecognized(b"no end", false);
        assert!(assembler.is_open());
        assembler.line(b" in sight");
        let expected =
            "2026-11-23T08:46:44.100000000Z AA\n{\"log\":\"x\"}\n2026-11-23T08:46:44.500000000Z BB\nno end in sight\n";
        assert_eq!(assembler.frame(Fd::Out), expected.as_bytes());
        assert_eq!((assembler.unrecognized_lines(), assembler.is_open()), (2, false));
    }
}
