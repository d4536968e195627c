INSERT INTO domains (domain_id, domain, type, relay_address, enabled) VALUES (1,'example.com','local','',1),(2,'example.net','local','',1),(3,'relay.example','relay','10.0.0.5',1),(4,'off.example','local','',0),(5,'xn--kln-sna.example','local','',1);
INSERT INTO users (user_id, domain_id, localpart, username, smtp, type, on_forward, unseen, forward, enabled) VALUES
 (1,1,'alice','alice@example.com','/var/vmail/example.com/alice/Maildir','local',0,0,NULL,1),
 (2,1,'bob','bob@example.com','/var/vmail/example.com/bob/Maildir','local',1,1,'bob@remote.example, alice@example.com',1),
 (3,1,'o''brien','o''brien@example.com','/var/vmail/example.com/o''brien/Maildir','local',1,0,'"o''brien"@remote.example',1),
 (4,1,'team','team@example.com','alice@example.com,bob@example.com','alias',0,0,NULL,1),
 (5,1,'spamtrap','spamtrap@example.com',':fail:','fail',0,0,NULL,1),
 (6,1,'ticket','ticket@example.com','|/usr/bin/ticket','piped',0,0,NULL,1),
 (7,2,'*','*@example.net','catch@example.com','catch',0,0,NULL,1),
 (8,1,'catch','catch@example.com','/var/vmail/example.com/catch/Maildir','local',0,0,NULL,1),
 (9,2,'dora','dora@example.net','/var/vmail/example.net/dora/Maildir','local',0,0,NULL,0),
 (10,1,'MiXed','MiXed@example.com','/var/vmail/example.com/MiXed/Maildir','local',0,0,NULL,1),
 (11,5,'büro','büro@xn--kln-sna.example','/var/vmail/koeln/buero/Maildir','local',0,0,NULL,1),
 (12,1,'a_b','a_b@example.com','/var/vmail/example.com/a_b/Maildir','local',0,0,NULL,1);
INSERT INTO domainalias VALUES (1,'alias.example'),(1,'umlaut-ä.example'),(2,'alias-net.example');
INSERT INTO `groups` (id, domain_id, name, enabled) VALUES (1,1,'staff',1),(2,1,'old',0);
INSERT INTO group_contents VALUES (1,1),(1,2),(1,9),(2,1);
