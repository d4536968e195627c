package dovecot

// roomy is what a login takes of the stack, in octets, and a little more.
const roomy = 12 << 10

// startStep runs a step of x in a goroutine of its own. Its stack is made large enough at once:
// grown by and by it is copied three times, with ever more on it.
func (c *clientConn) startStep(x *exchange, response []byte) {
	c.steps.Go(func() {
		makeRoom(0)
		x.step(response)
	})
}

// makeRoom has a frame that takes the room.
//
//go:noinline
func makeRoom(i int) byte {
	var room [roomy]byte
	return room[i]
}
