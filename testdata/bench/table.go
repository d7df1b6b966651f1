package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A table has a row for each contender and a column for each figure.
type table struct {
	title   string
	columns []column
	names   []string
	samples map[string][][]float64 // of a contender, by column
}

// A column is a figure. Its ratio is to the first contender.
type column struct {
	name   string
	format string
	ratio  bool
}

func newTable(title string, columns ...column) *table {
	return &table{title: title, columns: columns, samples: map[string][][]float64{}}
}

// add adds the figures of one round.
func (t *table) add(contender string, figures ...float64) {
	if t.samples[contender] == nil {
		t.names = append(t.names, contender)
		t.samples[contender] = make([][]float64, len(t.columns))
	}
	for i, f := range figures {
		t.samples[contender][i] = append(t.samples[contender][i], f)
	}
}

// print writes medians, the least and the greatest figure, in Markdown. The order
// is that of names.
func (t *table) print(w io.Writer, names []string) {
	fmt.Fprintf(w, "\n%s (load %s)\n\n", t.title, load())
	out := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	defer out.Flush()
	head, rule := "| ", "| ---"
	for _, c := range t.columns {
		head += "\t| " + c.name
		rule += "\t| ---"
		if c.ratio {
			head += "\t| ratio"
			rule += "\t| ---"
		}
	}
	fmt.Fprintf(out, "%s\t|\n%s\t|\n", head, rule)
	for _, name := range names {
		samples, measured := t.samples[name]
		if !measured {
			continue
		}
		row := []string{"| " + name}
		for i, c := range t.columns {
			m := median(samples[i])
			row = append(row, fmt.Sprintf("| "+c.format+" ("+c.format+", "+c.format+")", m, slices.Min(samples[i]), slices.Max(samples[i])))
			if c.ratio {
				row = append(row, fmt.Sprintf("| %.2f", m/median(t.samples[names[0]][i])))
			}
		}
		fmt.Fprintln(out, strings.Join(row, "\t")+"\t|")
	}
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// turns calls fn for all, as often as there are rounds, in another order each time.
func turns[T any](rounds int, all []T, fn func(T) error) error {
	for round := range rounds {
		for i := range all {
			k := (round + i) % len(all)
			if round/len(all)%2 == 1 {
				k = (round + len(all) - i) % len(all)
			}
			if err := fn(all[k]); err != nil {
				return err
			}
		}
	}
	return nil
}
