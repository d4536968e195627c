INSERT INTO mail_domain (server_id, domain, active) VALUES (1,'example.com','y'),(1,'example.net','y'),(1,'off.example','n'),(2,'other.example','y'),(1,'xn--mller-kva.example','y'),(1,'alias.example','y');
INSERT INTO mail_user (server_id, email, login, maildir, cc, forward_in_lda, sender_cc, postfix, disabledeliver, disablesmtp) VALUES
 (1,'alice@example.com','alice@example.com','/var/vmail/example.com/alice','','n','','y','n','n'),
 (1,'bob@example.com','bob','/var/vmail/example.com/bob','archive@example.net, alice@example.com','n','audit@example.com','y','n','n'),
 (1,'o''brien@example.com','o''brien@example.com','/var/vmail/example.com/o''brien','','n','','y','n','y'),
 (1,'copy@example.com','copy@example.com','/var/vmail/example.com/copy','alice@example.com','y','','y','n','n'),
 (1,'gone@example.com','gone@example.com','/var/vmail/example.com/gone','','n','','y','y','n'),
 (1,'dave@example.net','dave@example.net','/var/vmail/example.net/dave','','n','','n','n','n'),
 (1,'archive@example.net','archive@example.net','/var/vmail/example.net/archive',NULL,'n','','y','n','n'),
 (1,'jörg@xn--mller-kva.example','joerg','/var/vmail/mueller/joerg','','n','','y','n','n'),
 (2,'carol@other.example','carol@other.example','/var/vmail/other.example/carol','','n','','y','n','n');
INSERT INTO mail_forwarding (server_id, source, destination, type, active, allow_send_as) VALUES
 (1,'postmaster@example.com','alice@example.com','alias','y','y'),
 (1,'team@example.com','alice@example.com\r\nbob@example.com\r\nexternal@remote.example','forward','y','n'),
 (1,'@alias.example','@example.com','aliasdomain','y','n'),
 (1,'@example.net','archive@example.net','catchall','y','n'),
 (1,'off@example.com','alice@example.com','alias','n','y'),
 (1,'list+tag@example.com','bob@example.com','alias','y','n'),
 (1,'loop@example.com','loop@example.com, alice@example.com','forward','y','n'),
 (2,'postmaster@example.net','carol@other.example','alias','y','n');
INSERT INTO mail_transport (server_id, domain, transport, sort_order, active) VALUES (1,'relay.example','smtp:[10.0.0.7]:2525',5,'y'),(1,'.relay.example','smtp:[10.0.0.8]',5,'y'),(1,'special@example.com','retry:',5,'y'),(1,'example.org',':[mx.example.org]',5,'y'),(1,'off.relay','smtp:[10.0.0.9]',5,'n');
INSERT INTO mail_relay_recipient (source, access) VALUES ('user@relay.example','OK'),('@sub.relay.example','OK'),('example.org','OK');
INSERT INTO mail_access (source, access, type, active) VALUES ('spam@remote.example','REJECT spam','sender','y'),('remote.invalid','REJECT domain','sender','y'),('sink@','DISCARD','recipient','n'),('blocked@example.com','REJECT','recipient','y'),('bob@','555 no','recipient','y'),('127.0.0.1','OK','client','n'),('10.1','REJECT','client','y');
