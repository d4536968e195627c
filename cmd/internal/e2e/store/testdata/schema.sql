-- The built-in layout, and tables for what real sites do beyond it.
CREATE TABLE domains (domain VARCHAR(255) NOT NULL PRIMARY KEY);
CREATE TABLE users (email VARCHAR(255) NOT NULL PRIMARY KEY, password VARCHAR(255) NOT NULL, quota BIGINT NOT NULL DEFAULT 0);
CREATE TABLE alias (address VARCHAR(255) NOT NULL PRIMARY KEY, goto TEXT NOT NULL);
INSERT INTO domains VALUES ('example.com'), ('example.net'), ('strasse.example'), ('müller.example'), ('alias.example');
INSERT INTO users VALUES
  ('alice@example.com', '{SHA512-CRYPT}$6$saltalice$2AQpm1MKOSwBWWe9YDL6jmicGFhfYk5DLn.AGfQl3kINHyoX1vg2JyJCeylRdpvW0HQ7SJJ6A5ThOCwi8kY0Q/', 1048576),
  ('Bob@Example.com', '$6$saltalice$2AQpm1MKOSwBWWe9YDL6jmicGFhfYk5DLn.AGfQl3kINHyoX1vg2JyJCeylRdpvW0HQ7SJJ6A5ThOCwi8kY0Q/', 0),
  ('o''brien@example.com', '{PLAIN}obrien-secret', 2048),
  ('back\\slash@example.com', '{PLAIN}x', 1),
  ('"quo ted"@example.com', '{PLAIN}x', 1),
  ('percent%@example.com', '{PLAIN}x', 1),
  ('jörg@müller.example', '{PLAIN}x', 1),
  ('x'' OR ''1''=''1@example.com', '{PLAIN}x', 1);
INSERT INTO alias VALUES
  ('postmaster@example.com', 'alice@example.com'),
  ('team@example.com', 'alice@example.com,bob@example.com'),
  ('sales@example.net', 'carol@example.net,buyer@remote.example'),
  ('@example.net', 'carol@example.net'),
  ('@alias.example', '@example.com'),
  ('empty@example.com', ''),
  ('lines@example.com', 'a@example.com\r\nb@example.com'),
  ('nul@example.com', 'a@example.com\0b@example.com');

-- several rows and columns, NULL and empty values
CREATE TABLE multi (id INT AUTO_INCREMENT PRIMARY KEY, k VARCHAR(255), a VARCHAR(255), b VARCHAR(255), n INT);
INSERT INTO multi (k, a, b, n) VALUES
  ('two@example.com', 'a@example.com', 'b@example.com', 1), ('two@example.com', NULL, 'c@example.com', 2),
  ('two@example.com', '', 'd', NULL), ('two@example.com', '@example.com', 'f@', 4),
  ('nulls@example.com', NULL, NULL, NULL), ('empty@example.com', '', '', NULL), ('42', 'answer', NULL, 42), ('1', 'one', NULL, 1);

-- every type that is rendered differently over the two protocols
CREATE TABLE types (k VARCHAR(64), ti TINYINT(1), ui BIGINT UNSIGNED, f FLOAT, fd FLOAT(10,3), d DOUBLE, dd DOUBLE(12,4), de DECIMAL(12,4),
  da DATE, dt DATETIME, dt3 DATETIME(3), tm TIME, tm2 TIME(2), ts TIMESTAMP NULL, y YEAR, bi BIT(8), en ENUM('x','y'), st SET('p','q'), bl BLOB, js JSON);
INSERT INTO types VALUES
  ('a', 1, 18446744073709551615, 3.14, 3.14, 3.14, 3.14, 3.14, '2024-02-29', '2024-02-29 01:02:03', '2024-02-29 01:02:03.456', '-01:02:03', '100:00:00.5', '2024-02-29 01:02:03', 2024, b'01000001', 'y', 'p,q', 'blob', '{"a": 1}'),
  ('b', 0, 0, 0, 0, 0, 0, 0, '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '00:00:00', '00:00:00', NULL, 0, b'01100001', 'x', '', '', 'null'),
  ('c', -128, 9223372036854775808, 1e20, 123456.7891, 1e15, 123456.78909, -0.5, '9999-12-31', '1000-01-01 00:00:00', '2024-02-29 01:02:03', '838:59:59', '00:00:00.05', NULL, 1901, b'00100000', 'x', 'q', 'b', '[]'),
  ('d', 7, 7, 1.17549e-38, -1.5, 1e-15, -1, 1, NULL, NULL, NULL, NULL, NULL, NULL, 2155, NULL, NULL, NULL, NULL, NULL),
  ('e', 7, 7, 16777216, 0.0005, 123456789012345.6, 0.00005, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ('f', 7, 7, -1234567, 1, 1.7976931348623157e308, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ('g', 7, 7, 0.1, 1, 2.2250738585072014e-308, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ('h', 7, 7, 1e-5, 1, 123456789012345678, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ('i', 7, 7, 999999.5, 1, 0.1, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- character sets and collations
CREATE TABLE charsets (u VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, b VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  g VARCHAR(255) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci, l VARCHAR(255) CHARACTER SET latin1 COLLATE latin1_swedish_ci, r VARBINARY(255));
INSERT INTO charsets VALUES
  ('alice@example.com', 'alice@example.com', 'alice@example.com', 'alice@example.com', 'alice@example.com'),
  ('Alice2@Example.com', 'Alice2@Example.com', 'Alice2@Example.com', 'Alice2@Example.com', 'Alice2@Example.com'),
  ('jörg@müller.example', 'jörg@müller.example', 'jörg@müller.example', 'jörg@müller.example', 'jörg@müller.example'),
  ('strasse@example.com', 'strasse@example.com', 'strasse@example.com', 'strasse@example.com', 'strasse@example.com'),
  ('latin@example.com', 'latin@example.com', 'latin@example.com', 'latin@example.com', x'e96c616e');

-- names from keys
CREATE TABLE t_com (v VARCHAR(64)); INSERT INTO t_com VALUES ('in t_com');
CREATE TABLE com_t (v VARCHAR(64)); INSERT INTO com_t VALUES ('in com_t');
CREATE TABLE `t_example.com` (v VARCHAR(64)); INSERT INTO `t_example.com` VALUES ('dotted');

CREATE TABLE counters (k VARCHAR(64) PRIMARY KEY, n INT);
INSERT INTO counters VALUES ('alice@example.com', 0);
DELIMITER //
CREATE PROCEDURE one(IN x VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci) BEGIN SELECT goto FROM alias WHERE address = x; END//
CREATE PROCEDURE two(IN x VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci) BEGIN SELECT goto FROM alias WHERE address = x; SELECT 2; END//
CREATE PROCEDURE none(IN x VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci) BEGIN DO 1; END//
CREATE PROCEDURE boom(IN x VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci) BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'boom'; END//
CREATE PROCEDURE late(IN x VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci) BEGIN SELECT goto FROM alias WHERE address = x; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'late'; END//
DELIMITER ;

-- for dovecot-services.conf.ext; dora stands there twice
CREATE TABLE accounts (login VARCHAR(64), domain VARCHAR(64), password VARCHAR(255), nopassword CHAR(1), allow_nets VARCHAR(255), home VARCHAR(255),
  quota BIGINT, disabled CHAR(1) DEFAULT 'N', enableimap INT DEFAULT 1, enableimapsecured INT DEFAULT 1, enableimaptls INT DEFAULT 1,
  enablesmtp INT DEFAULT 0, enablelmtp INT DEFAULT 1);
INSERT INTO accounts (login, domain, password, nopassword, allow_nets, home, quota, disabled) VALUES
  ('Anna', 'example.com', 'clear', NULL, NULL, '/h/anna', 100, 'N'),
  ('Berta', 'example.com', NULL, 'Y', '10.0.0.0/8', '/h/berta', NULL, 'N'),
  ('Carla', 'example.com', NULL, NULL, NULL, '/h/carla', 0, 'N'),
  ('Dora', 'example.com', 'one', NULL, NULL, '/h/dora1', 1, 'N'), ('Dora', 'example.com', 'two', NULL, NULL, '/h/dora2', 2, 'N'),
  ('Emil', 'example.com', '{SSHA}x', NULL, NULL, '/h/emil', 1, 'Y');

-- numbers that are shown with zeros before them
CREATE TABLE zeros (k VARCHAR(64), i INT(6) ZEROFILL, t TINYINT ZEROFILL, b BIGINT ZEROFILL, f FLOAT(9,2) ZEROFILL, d DOUBLE ZEROFILL, de DECIMAL(8,2) ZEROFILL, u INT UNSIGNED);
INSERT INTO zeros VALUES ('a', 42, 7, 18446744073709551615, 3.14, 2.5, 1.5, 9), ('b', 1234567, 0, 0, 0, 0, 0, 0), ('c', NULL, 255, 5, 12345.67, 1e300, 99999.99, 4294967295);

-- a first hit among several tables and keys
CREATE TABLE many (k VARCHAR(64), v VARCHAR(64), KEY (k));
INSERT INTO many VALUES ('two@many.example', 'b'), ('two@many.example', 'a'), ('@many.example', 'catch'), ('null@many.example', NULL), ('empty@many.example', ''),
  ('broken@many.example', 'x'), ('@two.example', 'one'), ('@two.example', 'two'), ('one@many.example', 'single');
CREATE TABLE numbers (k VARCHAR(64), n INT, y YEAR, u INT(5) ZEROFILL);
INSERT INTO numbers VALUES ('@many.example', 5, 0, 5), ('one@many.example', -1, 2024, 7);
