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
-- policyd, node, which has a new number at each start. What was sent in a window is the sum over all nodes; node 0
-- takes off what an administrator has reset (dovepost policy rate reset).
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

-- The rule shield. An account that is held has its mail put on hold, on all machines. To see those:
--   SELECT * FROM shield_accounts WHERE state = 'held';
-- To release one, within seconds and on all machines; what was seen of it before does not count any more:
--   UPDATE shield_accounts SET state = 'released' WHERE login = 'joe@example.com';
-- One that must never be held (nothing that it does is looked at):
--   REPLACE INTO shield_accounts (login, state) VALUES ('newsletter@example.com', 'exempt');
-- login is in small letters; one of more than 190 octets is # and its hash.
CREATE TABLE IF NOT EXISTS shield_accounts (
  login   VARCHAR(190) NOT NULL,
  state   ENUM('held', 'released', 'exempt') NOT NULL,
  reason  VARCHAR(255) NOT NULL DEFAULT '',
  changed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  PRIMARY KEY (login)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- From which networks (192.0.2.0/24, 2001:db8::/64) logins send, and when each was last seen, in seconds
-- since 1970. policyd deletes what is older than a day.
CREATE TABLE IF NOT EXISTS shield_networks (
  login   VARCHAR(190) NOT NULL,
  network VARCHAR(43)  NOT NULL,
  seen    BIGINT       NOT NULL,
  PRIMARY KEY (login, network),
  KEY seen (seen)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What became of the recipients of a login's messages; as rate_counts.
CREATE TABLE IF NOT EXISTS shield_counts (
  name    VARCHAR(190) NOT NULL,
  step    INT          NOT NULL,
  start   BIGINT       NOT NULL,
  node    BIGINT       NOT NULL,
  tried   BIGINT       NOT NULL,
  refused BIGINT       NOT NULL,
  bounces BIGINT       NOT NULL,
  expires BIGINT       NOT NULL,
  PRIMARY KEY (name, step, start, node),
  KEY expires (expires)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

GRANT SELECT, INSERT, UPDATE         ON shield_accounts TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT, INSERT, UPDATE, DELETE ON shield_networks TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
GRANT SELECT, INSERT, UPDATE, DELETE ON shield_counts   TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
-- For shield_lock_query, if it is set: the column that it writes. For example
--   GRANT UPDATE (active) ON users TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';

-- Rule sender, with sender_grants = yes: who may send as an address beside its owners. address is
-- user@domain, or @domain (or *@domain) for all of a domain, in small letters; login is the name that he
-- logs in with. For example, so that anna may send as info@ and as anybody of her own domain:
--   INSERT INTO sender_grants (address, login) VALUES
--     ('info@example.com', 'anna@example.com'), ('@anna.example', 'anna@example.com');
CREATE TABLE IF NOT EXISTS sender_grants (
  address VARCHAR(320) NOT NULL,
  login   VARCHAR(320) NOT NULL,
  PRIMARY KEY (address, login)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin ROW_FORMAT=DYNAMIC;

GRANT SELECT ON sender_grants TO 'dovepost_policyd'@'localhost', 'dovepost_policyd'@'127.0.0.1';
