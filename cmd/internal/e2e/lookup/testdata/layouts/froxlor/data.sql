INSERT INTO panel_domains (id, domain, isemaildomain, deactivated) VALUES (1,'example.com',1,0),(2,'example.net',1,0),(3,'web.example',0,0),(4,'off.example',1,1),(5,'xn--mnchen-3ya.example',1,0);
INSERT INTO mail_users (email, username, homedir, maildir, postfix, domainid) VALUES
 ('alice@example.com','alice@example.com','/var/customers/mail/','web1/example.com/alice/','Y',1),
 ('bob@example.com','bob','/var/customers/mail/','web1/example.com/bob/','Y',1),
 ('o''brien@example.com','o''brien@example.com','/var/customers/mail/','web1/example.com/o''brien/','Y',1),
 ('carol@example.net','carol@example.net','/var/customers/mail/','','N',2),
 ('off@off.example','off@off.example','/var/customers/mail/','web2/off/','Y',4),
 ('info@xn--mnchen-3ya.example','info','/var/customers/mail/','web3/info/','Y',5);
INSERT INTO mail_virtual (email, email_full, destination, domainid, popaccountid, iscatchall) VALUES
 ('alice@example.com','alice@example.com','alice@example.com',1,1,0),
 ('bob@example.com','bob@example.com','bob@example.com alice@example.com  external@remote.example ',1,2,0),
 ('o''brien@example.com','o''brien@example.com','o''brien@example.com',1,3,0),
 ('@example.net','catchall@example.net','carol@example.net',2,4,1),
 ('carol@example.net','carol@example.net','carol@example.net',2,4,0),
 ('sales@example.com','sales@example.com','carol@example.net\tbob@example.com',1,0,0),
 ('café@example.com','café@example.com','alice@example.com',1,0,0),
 ('off@off.example','off@off.example','off@off.example',4,5,0),
 ('info@xn--mnchen-3ya.example','info@xn--mnchen-3ya.example','info@xn--mnchen-3ya.example',5,6,0),
 ('none@example.com','none@example.com','',1,0,0),
 ('none2@example.com','none2@example.com',NULL,1,0,0);
INSERT INTO mail_sender_aliases (email, allowed_sender) VALUES ('alice@example.com','@example.net'),('bob@example.com','shared@example.com'),('alice@example.com','shared@example.com');
