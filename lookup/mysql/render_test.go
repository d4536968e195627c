package mysql

import (
	"math"
	"strconv"
	"testing"
)

// floats come out as the server writes them; seen with MariaDB 10.11.
func TestFormatFloat(t *testing.T) {
	for _, tt := range []struct {
		v      float64
		digits int
		want   string
	}{
		{0, 0, "0"}, {1, 0, "1"}, {-1.5, 0, "-1.5"}, {0.1, 0, "0.1"}, {3.14, 0, "3.14"},
		{1e14, 0, "100000000000000"}, {1e15, 0, "1e15"}, {123456789012345.6, 0, "123456789012345.6"},
		{123456789012345678, 0, "1.2345678901234568e17"}, {1e-15, 0, "0.000000000000001"}, {1.5e-15, 0, "0.0000000000000015"},
		{1e-16, 0, "1e-16"}, {math.MaxFloat64, 0, "1.7976931348623157e308"}, {2.2250738585072014e-308, 0, "2.2250738585072014e-308"},
		{float64(float32(3.14)), 6, "3.14"}, {float64(float32(1e20)), 6, "1e20"}, {float64(float32(16777216)), 6, "16777200"},
		{float64(float32(-1234567)), 6, "-1234570"}, {float64(float32(1e-5)), 6, "0.00001"}, {float64(float32(999999.5)), 6, "1000000"},
	} {
		if got := formatFloat(tt.v, tt.digits); got != tt.want {
			t.Errorf("%v to %d digits: got %s, want %s", tt.v, tt.digits, got, tt.want)
		}
		if got, err := strconv.ParseFloat(formatFloat(tt.v, 0), 64); got != tt.v || err != nil {
			t.Errorf("%v: what is written reads as %v, %v", tt.v, got, err)
		}
	}
}
