// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who runs which piece of a recording.

use nix::sys::pthread::Pthread;

/// Less than this is not taken from another, in instructions: to begin takes a part of the time that they do.
const LEAST: u64 = 1 << 28;

/// The pieces of a run, some of which are being run.
pub(super) struct Plan {
    /// Where the run can be cut: its beginning, its checkpoints, and its end.
    bounds: Vec<u64>,
    pieces: Vec<Piece>,
    /// What is behind this is not wanted any more.
    wanted: u64,
}

/// A part of a run, between two of its bounds.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: usize,
    /// Where whoever runs it was last seen.
    at: usize,
    to: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running(Pthread),
    Over,
}

/// What is next for whoever has come to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The piece ends here.
    End,
    /// There is another bound after so many instructions.
    To(u64),
    /// There is only the end of the run.
    Last,
}

impl Plan {
    /// As many pieces as `jobs`, or fewer, about as long as each other.
    pub(super) fn new(bounds: Vec<u64>, jobs: usize) -> Self {
        let (last, end) = (bounds.len() - 1, bounds.last().copied().unwrap_or_default());
        let share = |job: usize| (u128::from(end) * job as u128 / jobs as u128) as u64;
        let mut cuts: Vec<usize> = (1..jobs)
            .map(|job| nearest(&bounds, 1..last, share(job)))
            .collect::<Option<_>>()
            .unwrap_or_default();
        cuts.insert(0, 0);
        cuts.push(last);
        cuts.dedup();
        let pieces = cuts.windows(2).map(|cut| Piece {
            from: cut[0],
            at: cut[0],
            to: cut[1],
            state: State::Waiting,
        });
        Self {
            pieces: pieces.collect(),
            bounds,
            wanted: u64::MAX,
        }
    }

    /// One piece of a run, from one of its bounds to another; `None` if it has no such bounds.
    pub(super) fn part(bounds: Vec<u64>, from: u64, to: u64) -> Option<Self> {
        let bound = |at| bounds.iter().position(|bound| *bound == at);
        let (from, to) = (bound(from)?, bound(to)?);
        let piece = Piece {
            from,
            at: from,
            to,
            state: State::Waiting,
        };
        (from < to).then(|| Self {
            bounds,
            pieces: vec![piece],
            wanted: u64::MAX,
        })
    }

    /// Where each piece begins and ends.
    pub(super) fn cuts(&self) -> Vec<(u64, u64)> {
        let bound = |number: usize| self.bounds[number];
        self.pieces.iter().map(|it| (bound(it.from), bound(it.to))).collect()
    }

    /// Instructions of all pieces.
    pub(super) fn length(&self) -> u64 {
        self.cuts().iter().map(|(from, to)| to - from).sum()
    }

    /// How many pieces there are.
    pub(super) fn count(&self) -> usize {
        self.pieces.len()
    }

    /// A piece for `thread` to run: one that nobody has begun, or the second half of what is left of the longest. Returns its number, and
    /// after how many instructions it begins.
    pub(super) fn take(&mut self, thread: Pthread) -> Option<(usize, u64)> {
        let waiting = |piece: &Piece| piece.state == State::Waiting && self.bounds[piece.from] < self.wanted;
        let number = match self.pieces.iter().position(waiting) {
            Some(number) => number,
            None => self.halve()?,
        };
        let piece = &mut self.pieces[number];
        piece.state = State::Running(thread);
        Some((number, self.bounds[piece.from]))
    }

    /// Makes two of the one of which most is left.
    fn halve(&mut self) -> Option<usize> {
        let left = |piece: &Piece| self.bounds[piece.to] - self.bounds[piece.at];
        let running =
            |piece: &&mut Piece| matches!(piece.state, State::Running(_)) && self.bounds[piece.to] <= self.wanted;
        let longest = self.pieces.iter_mut().filter(running).max_by_key(|piece| left(piece))?;
        let (from, to) = (self.bounds[longest.at], self.bounds[longest.to]);
        let cut = nearest(&self.bounds, longest.at + 1..longest.to, from + (to - from) / 2)?;
        if to - self.bounds[cut] < LEAST {
            return None;
        }
        let piece = Piece {
            from: cut,
            at: cut,
            to: longest.to,
            state: State::Waiting,
        };
        longest.to = cut;
        self.pieces.push(piece);
        Some(self.pieces.len() - 1)
    }

    /// What comes first for whoever begins a piece.
    pub(super) fn first(&self, number: usize) -> Step {
        self.behind(self.pieces[number].from)
    }

    /// Whoever runs a piece is at its next bound.
    pub(super) fn reached(&mut self, number: usize) -> Step {
        let piece = &mut self.pieces[number];
        piece.at += 1;
        match piece.at == piece.to {
            true => Step::End,
            false => {
                let at = piece.at;
                self.behind(at)
            }
        }
    }

    fn behind(&self, bound: usize) -> Step {
        match self.bounds.get(bound + 1) {
            Some(next) if bound + 2 < self.bounds.len() => Step::To(*next),
            _ => Step::Last,
        }
    }

    /// A piece is over. Whether whoever ran it is still wanted.
    pub(super) fn end(&mut self, number: usize) -> bool {
        self.pieces[number].state = State::Over;
        self.is_wanted(number)
    }

    /// Whether what comes of a piece is.
    pub(super) fn is_wanted(&self, number: usize) -> bool {
        self.begin(number) < self.wanted
    }

    /// What is behind the piece, or with `None` everything, is not wanted any more. Calls `stop` for whoever runs that.
    pub(super) fn give_up(&mut self, behind: Option<usize>, stop: impl Fn(Pthread)) {
        let wanted = behind.map_or(0, |number| self.bounds[self.pieces[number].from] + 1);
        self.wanted = self.wanted.min(wanted);
        for piece in &self.pieces {
            if let State::Running(thread) = piece.state
                && self.bounds[piece.from] >= self.wanted
            {
                stop(thread);
            }
        }
    }

    /// After how many instructions a piece begins.
    pub(super) fn begin(&self, number: usize) -> u64 {
        self.bounds[self.pieces[number].from]
    }
}

/// The bound nearest to `wanted`, of those in `range`; `None` if that has none.
fn nearest(bounds: &[u64], range: std::ops::Range<usize>, wanted: u64) -> Option<usize> {
    range.min_by_key(|bound| bounds[*bound].abs_diff(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = 1 << 30;

    /// Checkpoints at each eighth of a run of eight times 2^30 instructions, and a little more.
    fn plan(jobs: usize) -> Plan {
        Plan::new((0..=8).map(|number| number * G).chain([8 * G + 9]).collect(), jobs)
    }

    #[test]
    fn cut_where_it_can_be() {
        let cuts = |plan: Plan| -> Vec<(usize, usize)> { plan.pieces.iter().map(|it| (it.from, it.to)).collect() };
        assert_eq!(cuts(plan(1)), [(0, 9)]);
        assert_eq!(cuts(plan(2)), [(0, 4), (4, 9)]);
        assert_eq!(cuts(plan(3)), [(0, 3), (3, 5), (5, 9)]);
        assert_eq!(cuts(plan(100)).len(), 9);
        assert_eq!(cuts(Plan::new(vec![0, 7], 4)), [(0, 1)], "no checkpoint");
        assert_eq!(cuts(Plan::new(vec![0, 7, 9], 4)), [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_part_ends_where_it_is_to() {
        let bounds = vec![0, G, 2 * G, 3 * G];
        let mut part = Plan::part(bounds.clone(), G, 2 * G).expect("a part");
        assert_eq!((part.cuts(), part.length()), (vec![(G, 2 * G)], G));
        assert_eq!(part.take(1), Some((0, G)));
        assert_eq!(part.first(0), Step::To(2 * G));
        assert_eq!(part.reached(0), Step::End);
        for (from, to) in [(G, G), (2 * G, G), (1, G), (G, 7)] {
            assert!(Plan::part(bounds.clone(), from, to).is_none(), "{from} {to}");
        }
        let whole: Vec<(u64, u64)> = plan(3).cuts();
        assert_eq!((whole[0].0, whole[2].1), (0, 8 * G + 9));
        assert!(whole.windows(2).all(|two| two[0].1 == two[1].0));
    }

    #[test]
    fn who_is_done_takes_half_of_what_another_has_left() {
        let mut plan = plan(2);
        assert_eq!((plan.take(1), plan.take(2)), (Some((0, 0)), Some((1, 4 * G))));
        assert_eq!(plan.first(0), Step::To(G));
        assert_eq!(plan.reached(0), Step::To(2 * G));
        assert_eq!(plan.first(1), Step::To(5 * G));
        for next in 6..=8 {
            assert_eq!(plan.reached(1), Step::To(next * G));
        }
        assert_eq!(plan.reached(1), Step::Last);
        assert!(plan.end(1));
        // From 1 to 4, the first of them is behind.
        assert_eq!(plan.take(2), Some((2, 2 * G)));
        assert_eq!(plan.first(2), Step::To(3 * G));
        assert_eq!(plan.reached(0), Step::End);
        assert!(plan.end(0));
        assert_eq!(plan.take(1), Some((3, 3 * G)));
        assert_eq!(plan.reached(2), Step::End);
        assert!(plan.end(2));
        assert_eq!(plan.take(2), None, "nothing is left to cut");
    }

    #[test]
    fn what_is_behind_a_difference_is_not_wanted() {
        let mut plan = plan(4);
        for thread in 1..=3 {
            assert!(plan.take(thread).is_some());
        }
        let stopped = |plan: &mut Plan, behind| {
            let stopped = std::cell::RefCell::new(Vec::new());
            plan.give_up(behind, |thread| stopped.borrow_mut().push(thread));
            stopped.into_inner()
        };
        assert!(plan.end(1));
        assert_eq!(stopped(&mut plan, Some(1)), [3]);
        assert!(!plan.end(2));
        // The fourth is not begun; of the first, which is before it, a half is.
        assert_eq!(plan.take(2), Some((4, G)));
        assert_eq!(plan.take(3), None);
        assert_eq!(stopped(&mut plan, None), [1, 2]);
        assert_eq!(plan.take(3), None);
    }
}
