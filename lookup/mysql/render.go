package mysql

import (
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx"
)

// row scans one row after the other into values.
type row struct {
	values []sql.NullString
	dest   []any // of *cell
}

// cell renders one value of a row as the text protocol would: sql.Scanner.
type cell struct {
	value  *sql.NullString
	rows   *sqlx.Rows
	column int
}

func newRow(rows *sqlx.Rows, columns int) *row {
	r := &row{values: make([]sql.NullString, columns), dest: make([]any, columns)}
	cells := make([]cell, columns)
	for i := range cells {
		cells[i] = cell{&r.values[i], rows, i}
		r.dest[i] = &cells[i]
	}
	return r
}

// Scan implements sql.Scanner.
func (c *cell) Scan(src any) error {
	c.value.Valid = true
	switch v := src.(type) {
	case nil:
		*c.value = sql.NullString{}
	case []byte:
		c.value.String = string(v)
	case string:
		c.value.String = v
	case int64:
		c.value.String = strconv.FormatInt(v, 10)
		if v == 0 && c.columnType() == "YEAR" {
			c.value.String = "0000"
		}
	case uint64:
		c.value.String = strconv.FormatUint(v, 10)
	case float32:
		c.value.String = c.float(float64(v), 6)
	case float64:
		c.value.String = c.float(v, 0)
	default:
		return fmt.Errorf("column %d: unexpected type %T", c.column+1, src)
	}
	return nil
}

func (c *cell) columnType() string {
	types, err := c.rows.ColumnTypes()
	if err != nil {
		return ""
	}
	return types[c.column].DatabaseTypeName()
}

// float renders v as the server does, with at most digits significant digits, or
// as few as tell it from its neighbours if digits is 0. A column that was
// declared with decimals shows exactly these.
func (c *cell) float(v float64, digits int) string {
	if types, err := c.rows.ColumnTypes(); err == nil {
		if _, decimals, ok := types[c.column].DecimalSize(); ok && decimals < math.MaxInt8 {
			return strconv.FormatFloat(v, 'f', int(decimals), 64)
		}
	}
	return formatFloat(v, digits)
}

// formatFloat renders v as MySQL's my_gcvt: without exponent for what needs no
// more than 14 zeros after the point or 15 digits before it, else as d.ddde-NN.
func formatFloat(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'e', digits-1, 64) // [-]d.ddde±dd; precision -1 is "as few as needed"
	mantissa, exponent, ok := strings.Cut(text, "e")
	if !ok {
		return text // Inf, NaN: the server has no such values
	}
	sign := ""
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	number := strings.TrimRight(whole+fraction, "0")
	if number == "" {
		return sign + "0"
	}
	e, err := strconv.Atoi(exponent)
	if err != nil {
		return text
	}
	point := e + 1 // v = 0.number × 10^point
	switch {
	case point < -14 || point > 15 && len(number) <= point:
		if len(number) > 1 {
			number = number[:1] + "." + number[1:]
		}
		return sign + number + "e" + strconv.Itoa(e)
	case point <= 0:
		return sign + "0." + strings.Repeat("0", -point) + number
	case len(number) <= point:
		return sign + number + strings.Repeat("0", point-len(number))
	default:
		return sign + number[:point] + "." + number[point:]
	}
}
