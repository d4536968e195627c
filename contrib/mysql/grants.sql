-- An account for each daemon, with the columns that it asks for and no others:
-- only authd can read passwords. Put passwords of your own in place of change-me-*,
-- here and in /etc/dovepost/mysql-*.cf, then:   mysql maildb < grants.sql
--
-- MySQL takes a client on 127.0.0.1 for @'127.0.0.1', MariaDB for @'localhost': both are there.
CREATE USER IF NOT EXISTS
  'dovepost_lookupd'@'localhost' IDENTIFIED BY 'change-me-lookupd', 'dovepost_lookupd'@'127.0.0.1' IDENTIFIED BY 'change-me-lookupd',
  'dovepost_authd'@'localhost'   IDENTIFIED BY 'change-me-authd',   'dovepost_authd'@'127.0.0.1'   IDENTIFIED BY 'change-me-authd',
  'dovepost_lmtpd'@'localhost'   IDENTIFIED BY 'change-me-lmtpd',   'dovepost_lmtpd'@'127.0.0.1'   IDENTIFIED BY 'change-me-lmtpd',
  'dovepost_policyd'@'localhost' IDENTIFIED BY 'change-me-policyd', 'dovepost_policyd'@'127.0.0.1' IDENTIFIED BY 'change-me-policyd';

GRANT SELECT (domain)                 ON domains TO 'dovepost_lookupd'@'localhost', 'dovepost_lookupd'@'127.0.0.1';
GRANT SELECT (email)                  ON users   TO 'dovepost_lookupd'@'localhost', 'dovepost_lookupd'@'127.0.0.1';
GRANT SELECT (address, goto)          ON alias   TO 'dovepost_lookupd'@'localhost', 'dovepost_lookupd'@'127.0.0.1';

GRANT SELECT (email, password, quota) ON users   TO 'dovepost_authd'@'localhost', 'dovepost_authd'@'127.0.0.1';

GRANT SELECT (email, quota)           ON users   TO 'dovepost_lmtpd'@'localhost', 'dovepost_lmtpd'@'127.0.0.1';

-- policyd looks up what Postfix and lmtpd do; the rules' own tables, and the rights to them, are in policy.sql.
GRANT SELECT (domain)                 ON domains TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT (email, quota)           ON users   TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT (address, goto)          ON alias   TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
