-- The schema that dovepost serves when it is given --mysql and nothing else.
-- MySQL 5.7 or later, MariaDB 10.3 or later:   mysql < schema.sql
CREATE DATABASE IF NOT EXISTS maildb CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE maildb;

-- The domains whose mailboxes are here.
CREATE TABLE IF NOT EXISTS domains (
  domain VARCHAR(255) NOT NULL,
  PRIMARY KEY (domain)
);

-- One row a mailbox. password is {SCHEME}hash as `dovepost pw` and `doveadm pw` print it;
-- quota is in KiB, 0 means no limit.
CREATE TABLE IF NOT EXISTS users (
  email    VARCHAR(255) NOT NULL,
  password VARCHAR(255) NOT NULL,
  quota    BIGINT       NOT NULL DEFAULT 0,
  PRIMARY KEY (email)
);

-- address is user@domain, or @domain for a catch-all; goto is one address or a list with
-- commas, and one address may have several rows. A goto of @domain keeps the local part.
CREATE TABLE IF NOT EXISTS alias (
  id      BIGINT       NOT NULL AUTO_INCREMENT,
  address VARCHAR(255) NOT NULL,
  goto    TEXT         NOT NULL,
  PRIMARY KEY (id),
  KEY address (address)
);
