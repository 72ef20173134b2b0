PRAGMA auto_vacuum = INCREMENTAL;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'treewarden','0001_first_tables','2026-11-21 07:05:48.491406+00:00');
CREATE TABLE agent_crash (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        incarnation INTEGER NOT NULL,
        operation TEXT NOT NULL,
        message TEXT NOT NULL,
        fault TEXT NOT NULL,
        revision INTEGER NOT NULL,
        payload TEXT,
        crc INTEGER NOT NULL
    ) STRICT;
INSERT INTO "agent_crash" VALUES(1,'/counter',1790000000012000000,1,'add','{"n":"x"}','{"type":"TypeError","message":"no"}',1,NULL,3430505123);
INSERT INTO "agent_crash" VALUES(2,'/counter',1790000000013000000,2,'add','{"n":"x"}','{"type":"TypeError","message":"no"}',2,'{"total":2}',3401857685);
CREATE TABLE agent_state (
        path TEXT PRIMARY KEY,
        store_as TEXT NOT NULL,
        state_version INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        payload TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT;
INSERT INTO "agent_state" VALUES('/counter','Counter',1,3,'{"total":3}',1790000000008000000,1954446298);
INSERT INTO "agent_state" VALUES('/people/ada','Person',2,7,'{"name":"Ada Lovelace","mark":"✓"}',1790000000009000000,3236779699);
INSERT INTO "agent_state" VALUES('/frontier','Frontier',1,1,'{}',1790000000010000000,1426887242);
CREATE TABLE journal (
        position INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        kind TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        source TEXT NOT NULL,
        trace TEXT NOT NULL,
        payload TEXT NOT NULL,
        end_bytes INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT;
INSERT INTO "journal" VALUES(1,'counter.changed','event',1790000000003000000,'/counter','00-trace-1','{"total":1}',90,2186022656);
INSERT INTO "journal" VALUES(2,'counter.changed','event',1790000000005000000,'/counter','00-trace-2','{"total":2}',180,3303518105);
INSERT INTO "journal" VALUES(3,'counter.changed','event',1790000000007000000,'/counter','00-trace-3','{"total":3}',270,4185837550);
INSERT INTO "journal" VALUES(4,'supervision.crash','report',1790000000011000000,'/counter','','{"path":"/counter"}',370,3192818083);
CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('application','shop');
INSERT INTO "meta" VALUES('boot','01a1fcecee961b5eba98004eee4a');
INSERT INTO "meta" VALUES('clean_shutdown','yes');
INSERT INTO "meta" VALUES('created_at_ns','1790000000001000000');
CREATE TABLE queue_item (
        seq INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        name TEXT NOT NULL,
        key TEXT NOT NULL,
        payload TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        free_at REAL,
        crc INTEGER NOT NULL,
        UNIQUE (path, name, key)
    ) STRICT;
INSERT INTO "queue_item" VALUES(1,'/frontier','pending','a','"http://example.org/a"',1,130.0,3636353817);
INSERT INTO "queue_item" VALUES(2,'/frontier','pending','b','"http://example.org/b"',0,NULL,2239115751);
INSERT INTO "queue_item" VALUES(3,'/frontier','pending','c','"http://example.org/c"',0,NULL,119466610);
INSERT INTO "queue_item" VALUES(4,'/frontier','pending','later','"http://example.org/later"',0,160.0,4083137172);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX agent_crash_by_path ON agent_crash (path, id);
CREATE INDEX queue_item_free ON queue_item (path, name, seq)
        WHERE free_at IS NULL;
CREATE INDEX queue_item_waiting ON queue_item (path, name, free_at, seq)
        WHERE free_at IS NOT NULL;
COMMIT;
PRAGMA application_id = 1415005271;
PRAGMA user_version = 1;
