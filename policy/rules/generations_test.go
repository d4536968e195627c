package rules

import (
	"fmt"
	"testing"
)

func TestGenerationsKeepWhatIsUsed(t *testing.T) {
	const most = 4
	var g generations[int]
	if _, ok := g.get("used"); ok {
		t.Error("an empty one has something")
	}
	g.delete("used")
	for i := range 10 * most {
		g.put("used", i, most)
		g.put(fmt.Sprint("once ", i), i, most)
		if n := g.len(); n > 2*most {
			t.Fatalf("%d of at most %d", n, 2*most)
		}
		if v, ok := g.get("used"); !ok || v != i {
			t.Fatalf("what is put again and again is %d, %v; want %d", v, ok, i)
		}
		if v, ok := g.get(fmt.Sprint("once ", max(0, i-most+2))); !ok || v != max(0, i-most+2) {
			t.Fatalf("one of the last %d is gone", most-1)
		}
	}
	if _, ok := g.get("once 0"); ok {
		t.Error("the first one is still there")
	}
	g.put("used", -1, most)
	g.delete("used")
	if v, ok := g.get("used"); ok {
		t.Errorf("what was deleted is %d", v)
	}
}
