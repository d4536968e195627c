INSERT INTO domains (domain_id, domain, enabled) VALUES (1,'example.com',1),(2,'example.net',1),(3,'example.org',0);
INSERT INTO users (domain_id, localpart, username, crypt, uid, gid, pop, type, quota, enabled) VALUES
 (1,'alice','alice@example.com','$6$saltalice$2AQpm1MKOSwBWWe9YDL6jmicGFhfYk5DLn.AGfQl3kINHyoX1vg2JyJCeylRdpvW0HQ7SJJ6A5ThOCwi8kY0Q/',2001,2001,'/var/vmail/example.com/alice','local',100,1),
 (1,'bob','bob@example.com','{PLAIN}bob-secret',2001,2001,'/var/vmail/example.com/bob','local',0,1),
 (1,'team','team@example.com','{PLAIN}team-secret',2001,2001,'alice@example.com','alias',0,1),
 (2,'dave','dave@example.net','$1$saltdave$lqYJd7Ta61hsbwdDtSH0m1',2001,2001,'/var/vmail/example.net/dave','local',0,0),
 (3,'erin','erin@example.org','{SSHA}pqayklL+CoIpOns8WW71o/OTAeVzYWx0',2001,2001,'/var/vmail/example.org/erin','local',0,1),
 (2,'mixed','MiXed@Example.net','{PLAIN}mixed-secret',2001,2001,'/var/vmail/example.net/MiXed','local',7,1);
