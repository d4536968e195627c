INSERT INTO accounts (local, domain, hash, anything, nets, closed, why, backend, port, home, quota) VALUES
 ('alice','example.com','{SHA512-CRYPT}$6$saltalice$2AQpm1MKOSwBWWe9YDL6jmicGFhfYk5DLn.AGfQl3kINHyoX1vg2JyJCeylRdpvW0HQ7SJJ6A5ThOCwi8kY0Q/',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL),
 ('o''brien','example.com','obrien-secret',NULL,'10.0.0.0/8, 127.0.0.1,::ffff:192.0.2.1',NULL,NULL,NULL,NULL,NULL,10),
 ('six','example.com','six-secret',NULL,'2001:db8::/32',NULL,NULL,NULL,NULL,NULL,10),
 ('local','example.com','local-secret',NULL,'local',NULL,NULL,NULL,NULL,NULL,10),
 ('odd','example.com','odd-secret',NULL,'nonsense 10.1.2.3/33,10.0.0.0/8',NULL,NULL,NULL,NULL,NULL,10),
 ('closed','example.com','closed-secret',NULL,NULL,'Y','The account is closed',NULL,NULL,NULL,10),
 ('anything','example.com',NULL,'Y',NULL,NULL,NULL,NULL,NULL,NULL,10),
 ('nothing','example.com',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,10),
 ('away','example.com','away-secret',NULL,NULL,NULL,NULL,'127.0.0.9',143,NULL,10),
 ('moved','example.com',NULL,'y','10.0.0.0/8',NULL,NULL,'10.9.8.7',NULL,NULL,10),
 ('homeless','example.com','homeless-secret',NULL,NULL,NULL,NULL,NULL,NULL,'/var/vmail/other/homeless',NULL),
 ('umläut','example.com','umläut-secret',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL),
 ('back\\slash"q','example.com','back\\slash"q-secret',NULL,NULL,NULL,NULL,NULL,NULL,NULL,5);
UPDATE accounts SET enableimap = 'N' WHERE local IN ('six');
UPDATE accounts SET enablesmtp = 'N', enablelmtp = 'N' WHERE local IN ('homeless');
