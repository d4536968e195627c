INSERT INTO domains VALUES ('example.com'), ('example.net'), ('müller.example');
INSERT INTO users VALUES ('alice@example.com', '/home/alice', 18446744073709551615), ('bob@example.com', NULL, 0), ('o''brien@example.com', '', NULL),
 ('"quo ted"@example.com', '/home/quo ted', 1), ('jörg@müller.example', '/home/jörg', 2), ('strasse@example.com', '/home/strasse', 3), ('42', '/home/42', 42);
INSERT INTO members VALUES ('one@example.com', 'alice@example.com', NULL), ('two@example.com', 'alice@example.com', 'bob@example.com'),
 ('three@example.com', 'alice@example.com', ''), ('three@example.com', 'bob@example.com', NULL), ('three@example.com', 'carol@remote.example', 'o''brien@example.com'),
 ('phrase@example.com', 'Alice <alice@example.com>; "bob"@example.com', NULL), ('empty@example.com', '', NULL), ('null@example.com', NULL, NULL),
 ('@example.net', '@example.com', NULL), ('local@example.com', 'root', NULL), ('ümlaut@example.com', 'jörg@müller.example', NULL);
