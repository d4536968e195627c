-- What authd can use beside schema.sql, if its settings have the queries (see authd.cf).
-- Take the parts that you want:   mysql maildb < extras.sql
-- The rights go with the accounts of grants.sql.

-- Further passwords of a user. password is {SCHEME}hash; a fast scheme such as SSHA256 will
-- do where the passwords are made at random, and a wrong one costs less then.
-- services is a list of imap, pop3, smtp, sieve; NULL is all. expires is NULL for never.
CREATE TABLE IF NOT EXISTS app_passwords (
  id       BIGINT       NOT NULL AUTO_INCREMENT,
  email    VARCHAR(255) NOT NULL,
  name     VARCHAR(255) NOT NULL,
  password VARCHAR(255) NOT NULL,
  services VARCHAR(255) NULL,
  expires  TIMESTAMP    NULL,
  PRIMARY KEY (id),
  KEY email (email)
);
GRANT SELECT ON app_passwords TO 'dovepost_authd'@'localhost', 'dovepost_authd'@'127.0.0.1';

-- When a user last logged in, by service.
CREATE TABLE IF NOT EXISTS last_login (
  email        VARCHAR(255) NOT NULL,
  service      VARCHAR(32)  NOT NULL,
  at           TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
  rip          VARCHAR(45)  NOT NULL DEFAULT '',
  app_password VARCHAR(255) NOT NULL DEFAULT '',
  PRIMARY KEY (email, service)
);
GRANT SELECT, INSERT, UPDATE ON last_login TO 'dovepost_authd'@'localhost', 'dovepost_authd'@'127.0.0.1';

-- For auth_rehash_query.
GRANT UPDATE (password) ON users TO 'dovepost_authd'@'localhost', 'dovepost_authd'@'127.0.0.1';
