//! Arrows with labels under a line of cells: head and tail, however close they are.

/// An arrow under a column.
#[derive(Debug, Clone)]
pub struct Arrow {
    pub column: usize,
    pub label: String,
}

/// Lines of `width` columns to put under the cells, for one arrow or two in order. A label stands
/// beside its arrow where it fits, or hangs below.
pub fn under(arrows: &[Arrow], width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let columns: Vec<usize> = arrows.iter().map(|arrow| arrow.column).collect();
    for arrow in arrows {
        put(&mut lines, 0, arrow.column, "▲", width);
    }
    for (number, Arrow { column, label }) in arrows.iter().enumerate() {
        let length = label.chars().count();
        // The first prefers its left and the second its right, so that they do not meet.
        let right = Some(column + 2).filter(|start| {
            let end = start + length;
            end <= width && !columns.iter().any(|c| (column + 1..end + 1).contains(c))
        });
        let left = column.checked_sub(length + 1).filter(|start| {
            !columns
                .iter()
                .any(|c| (start.saturating_sub(1)..*column).contains(c))
        });
        let first_of_two = number == 0 && arrows.len() == 2;
        let beside = if first_of_two {
            left.or(right)
        } else {
            right.or(left)
        };
        let (line, start, text) = match beside {
            Some(start) => (0, start, label.clone()),
            None if column + 2 + length <= width => (1, *column, format!("╰ {label}")),
            None => (1, column.saturating_sub(length + 1), format!("{label} ╯")),
        };
        put(&mut lines, line, start, &text, width);
    }
    lines.into_iter().map(String::from_iter).collect()
}

fn put(lines: &mut Vec<Vec<char>>, line: usize, start: usize, text: &str, width: usize) {
    while lines.len() <= line {
        lines.push(vec![' '; width]);
    }
    for (cell, letter) in lines[line].iter_mut().skip(start).zip(text.chars()) {
        *cell = letter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(arrows: &[(usize, &str)]) -> Vec<String> {
        let arrows: Vec<Arrow> = arrows
            .iter()
            .map(|(column, label)| Arrow {
                column: *column,
                label: (*label).to_owned(),
            })
            .collect();
        let lines = under(&arrows, 24);
        lines
            .iter()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_label_stands_beside_its_arrow() {
        assert_eq!(draw(&[]), [""; 0]);
        assert_eq!(draw(&[(0, "head 0")]), ["▲ head 0"]);
        assert_eq!(draw(&[(22, "head 22")]), ["              head 22 ▲"]);
        let both = draw(&[(9, "head 9"), (12, "tail 12")]);
        assert_eq!(both, ["  head 9 ▲  ▲ tail 12"]);
    }

    #[test]
    fn labels_that_would_meet_hang_below() {
        let left = draw(&[(0, "head 0"), (1, "tail 1")]);
        assert_eq!(left, ["▲▲ tail 1", "╰ head 0"]);
        let right = draw(&[(22, "head 22"), (23, "tail 23")]);
        assert_eq!(
            right,
            ["              head 22 ▲▲", "               tail 23 ╯"]
        );
    }

    #[test]
    fn far_apart_at_the_edges() {
        let both = draw(&[(0, "head 0"), (23, "tail 23")]);
        assert_eq!(both, ["▲ head 0       tail 23 ▲"]);
    }
}
