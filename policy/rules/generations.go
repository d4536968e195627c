package rules

// generations is a bounded map: when the young generation is full the old one is forgotten, and
// the young one is old. What is put again is young again. The zero value is empty; it is not safe for concurrent use.
type generations[V any] struct{ young, old map[string]V }

// get returns the value of a key, and whether there is one.
func (g *generations[V]) get(key string) (value V, ok bool) {
	if value, ok = g.young[key]; !ok {
		value, ok = g.old[key]
	}
	return value, ok
}

// put keeps a value, among at most most of its generation.
func (g *generations[V]) put(key string, value V, most int) {
	if _, again := g.young[key]; g.young == nil || !again && len(g.young) >= most {
		g.young, g.old = map[string]V{}, g.young
	}
	g.young[key] = value
}

// delete forgets a key.
func (g *generations[V]) delete(key string) {
	delete(g.young, key)
	delete(g.old, key)
}

// len returns how many values there are, those that are in both generations twice.
func (g *generations[V]) len() int { return len(g.young) + len(g.old) }
