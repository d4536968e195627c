INSERT INTO mail_user (email, login, password, maildir, quota, disableimap, disablepop3, disablesmtp, disablelmtp, disabledoveadm, server_id) VALUES
 ('alice@example.com','alice@example.com','$6$saltalice$2AQpm1MKOSwBWWe9YDL6jmicGFhfYk5DLn.AGfQl3kINHyoX1vg2JyJCeylRdpvW0HQ7SJJ6A5ThOCwi8kY0Q/','/var/vmail/example.com/alice',1048576,'n','n','n','n','n',1),
 ('bob@example.com','bob','{PLAIN}bob-secret','/var/vmail/example.com/bob',-1,'n','y','y','n','n',1),
 ('o''brien@example.com','o''brien@example.com','{PLAIN}obrien-secret','/var/vmail/example.com/o''brien',0,'y','n','n','y','n',1),
 ('dave@example.net','dave@example.net','$1$saltdave$lqYJd7Ta61hsbwdDtSH0m1','/var/vmail/example.net/dave',0,'n','n','n','n','y',1),
 ('erin@example.org','erin@example.org','{SSHA}pqayklL+CoIpOns8WW71o/OTAeVzYWx0','/var/vmail/example.org/erin',0,'n','n','n','n','n',2);
