-- What policyd keeps for its rules, beside schema.sql or the tables of any other layout:
--   mysql maildb < policy.sql
-- MySQL 5.7 or later, MariaDB 10.3 or later. It can be given again: what is there stays.
-- The tables are in the database that mysql = FILE of policyd.cf names. A rule that is off
-- needs none of them. The rights go with the account dovepost_policyd of grants.sql.
--
-- Keys are compared octet by octet (ascii_bin, utf8mb4_bin): what is equal is for policyd to
-- say, which folds names before it asks.

-- The rule access, with access_table = yes: the lines of its file as rows. field is client, sender,
-- recipient or login; pattern and action are as in the file. The row that matches with the lowest priority
-- decides, and of several the one with the lowest id. It is read every access_table_interval.
CREATE TABLE IF NOT EXISTS access_list (
  id       BIGINT       NOT NULL AUTO_INCREMENT,
  priority INT          NOT NULL DEFAULT 0,
  field    VARCHAR(16)  NOT NULL,
  pattern  VARCHAR(320) NOT NULL,
  action   VARCHAR(400) NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

GRANT SELECT ON access_list TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';

-- The rule greylist. A triplet of client network, sender and recipient that has been seen; id is a
-- hash of the three as policyd compares them, the texts are for people to read. Times are seconds since
-- 1970 of this server. policyd deletes what has expired.
CREATE TABLE IF NOT EXISTS greylist (
  id         BINARY(16)   NOT NULL,
  network    VARCHAR(43)  NOT NULL,
  sender     VARCHAR(255) NOT NULL,
  recipient  VARCHAR(255) NOT NULL,
  first_seen BIGINT       NOT NULL,
  passed     TINYINT      NOT NULL DEFAULT 0, -- 1: has come again in time
  expires    BIGINT       NOT NULL,
  PRIMARY KEY (id),
  KEY expires (expires)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Client networks (192.0.2.0/24, 2001:db8::/64), and how many triplets of theirs have passed.
CREATE TABLE IF NOT EXISTS greylist_networks (
  network VARCHAR(43) NOT NULL,
  passes  BIGINT      NOT NULL,
  expires BIGINT      NOT NULL,
  PRIMARY KEY (network),
  KEY expires (expires)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Who does not want greylisting (enabled = 0), or, with greylist_opt_in = yes, who does (1). address is
-- user@domain, or a domain, in small letters; user@domain beats its domain.
CREATE TABLE IF NOT EXISTS greylist_recipients (
  address VARCHAR(255) NOT NULL,
  enabled TINYINT      NOT NULL,
  PRIMARY KEY (address)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

GRANT SELECT, INSERT, UPDATE, DELETE ON greylist            TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT, INSERT, UPDATE, DELETE ON greylist_networks   TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT                         ON greylist_recipients TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';

-- The rule rate. What logins may send, where it is not what rate_limits of policyd.cf says; see there for
-- how limits are written. name is a login, or @ and a domain, in small letters; limits are those of the
-- login, or of each login of the domain; total is for all logins of the domain together. NULL or empty:
-- as if there was no row. A change is live within seconds:
--   REPLACE INTO rate_limits (name, limits) VALUES ('newsletter@example.com', '20K recipients/1d');
CREATE TABLE IF NOT EXISTS rate_limits (
  name    VARCHAR(255)  NOT NULL,
  limits  VARCHAR(1000) NULL,
  total   VARCHAR(1000) NULL,
  changed TIMESTAMP(6)  NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  PRIMARY KEY (name),
  KEY changed (changed)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What was sent: by whom, in the step seconds that begin at start (seconds since 1970), as counted by one
-- policyd, node, which has a new number at each start. What was sent in a window is the sum over all nodes.
-- policyd deletes what has expired.
CREATE TABLE IF NOT EXISTS rate_counts (
  name       VARCHAR(190) NOT NULL,
  step       INT          NOT NULL,
  start      BIGINT       NOT NULL,
  node       BIGINT       NOT NULL,
  messages   BIGINT       NOT NULL,
  recipients BIGINT       NOT NULL,
  bytes      BIGINT       NOT NULL,
  expires    BIGINT       NOT NULL,
  PRIMARY KEY (name, step, start, node),
  KEY expires (expires)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

GRANT SELECT                         ON rate_limits TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT, INSERT, UPDATE, DELETE ON rate_counts TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
