package mysql

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// render renders the value of a column as the text protocol would.
func render(rows driver.Rows, column int, value driver.Value) (sql.NullString, error) {
	var s string
	switch v := value.(type) {
	case nil:
		return sql.NullString{}, nil
	case []byte: // also a number that does not fit into an int64
		s = string(v)
	case string:
		s = v
	case int64:
		s = strconv.FormatInt(v, 10)
		switch name := typeName(rows, column); {
		case name == "YEAR" && v == 0:
			s = "0000"
		case strings.HasPrefix(name, "UNSIGNED "):
			s = zerofill(rows, column, s)
		}
	case uint64: // from a statement sent as text
		s = zerofill(rows, column, strconv.FormatUint(v, 10))
	case float32:
		s = zerofill(rows, column, float(rows, column, float64(v), 6))
	case float64:
		s = zerofill(rows, column, float(rows, column, v, 0))
	default:
		return sql.NullString{}, fmt.Errorf("column %d: unexpected type %T", column+1, value)
	}
	return sql.NullString{String: s, Valid: true}, nil
}

// typeName is the name of a column's type, "" if the driver does not tell.
func typeName(rows driver.Rows, column int) string {
	if t, ok := rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return t.ColumnTypeDatabaseTypeName(column)
	}
	return ""
}

// flagZerofill is the bit of a column's flags in the protocol.
const flagZerofill = 1 << 6

// zerofill pads a number of a ZEROFILL column to the column's width. The driver
// reads both from the wire but has no method that tells, so its fields are looked
// at; without them the number stays as it is.
func zerofill(rows driver.Rows, column int, number string) string {
	field := func(v reflect.Value, name string, kind reflect.Kind) reflect.Value {
		if v.Kind() != reflect.Struct || v.FieldByName(name).Kind() != kind {
			return reflect.Value{}
		}
		return v.FieldByName(name)
	}
	columns := field(field(reflect.Indirect(reflect.ValueOf(rows)), "rs", reflect.Struct), "columns", reflect.Slice)
	if columns.Kind() != reflect.Slice || columns.Len() <= column {
		return number
	}
	flags := field(columns.Index(column), "flags", reflect.Uint16)
	width := field(columns.Index(column), "length", reflect.Uint32)
	if !flags.IsValid() || !width.IsValid() || flags.Uint()&flagZerofill == 0 {
		return number
	}
	if missing := int(min(width.Uint(), 256)) - len(number); missing > 0 {
		return strings.Repeat("0", missing) + number
	}
	return number
}

// float renders v as the server does, with at most digits significant digits, or
// as few as tell it from its neighbours if digits is 0. A column that was
// declared with decimals shows exactly these.
func float(rows driver.Rows, column int, v float64, digits int) string {
	if t, ok := rows.(driver.RowsColumnTypePrecisionScale); ok {
		if _, decimals, ok := t.ColumnTypePrecisionScale(column); ok && decimals < math.MaxInt8 {
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
