INSERT INTO people VALUES ('alice@example.com', '{PLAIN}alice-secret'), ('bob@example.com', '{PLAIN}bob-secret'), ('carol@example.net', '{PLAIN}carol-secret');
