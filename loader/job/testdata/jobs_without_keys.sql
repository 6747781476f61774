-- A ledger of jobs as it was before jobs had keys (00014): what a release of that
-- time left, with a job in every status.
INSERT INTO tallyman.jobs (kind, dataset, revision_id, descriptor, created_at) VALUES
    ('copy', 'ads/clicks', 1, '{"parallelism": 1}', '2026-01-01 00:00:01Z'), -- scheduled
    ('copy', 'ads/clicks', 2, '{"parallelism": 2}', '2026-01-01 00:00:02Z'), -- running
    ('copy', 'ads/clicks', 3, '{"parallelism": 3}', '2026-01-01 00:00:03Z'), -- completed
    ('copy', 'ads/clicks', 4, '{"parallelism": 4}', '2026-01-01 00:00:04Z'), -- stop_requested
    ('copy', 'ads/clicks', 5, '{"parallelism": 5}', '2026-01-01 00:00:05Z'), -- stopping
    ('copy', 'ads/clicks', 6, '{"parallelism": 6}', '2026-01-01 00:00:06Z'), -- stopped
    ('copy', 'ads/clicks', 7, '{"parallelism": 7}', '2026-01-01 00:00:07Z'), -- error
    ('copy', 'ads/clicks', 8, '{"parallelism": 8}', '2026-01-01 00:00:08Z'), -- fatal
    ('copy', 'ads/clicks', 9, '{"parallelism": 9}', '2026-01-01 00:00:09Z'), -- running in its second epoch
    ('copy', 'ads/clicks', 9, '{"parallelism": 10}', '2026-01-01 00:00:10Z'); -- stopped, beside the one about the same

INSERT INTO tallyman.job_events (job_id, epoch, type, worker, detail, at) VALUES
    (1, 1, 'scheduled', '', '{}', '2026-01-02 00:00:01Z'),
    (2, 1, 'scheduled', '', '{}', '2026-01-02 00:00:02Z'),
    (2, 1, 'running', 'm', '{}', '2026-01-02 00:01:02Z'),
    (3, 1, 'scheduled', '', '{}', '2026-01-02 00:00:03Z'),
    (3, 1, 'running', 'm', '{}', '2026-01-02 00:01:03Z'),
    (3, 1, 'completed', 'm', '{}', '2026-01-02 00:02:03Z'),
    (4, 1, 'scheduled', '', '{}', '2026-01-02 00:00:04Z'),
    (4, 1, 'stop_requested', '', '{}', '2026-01-02 00:01:04Z'),
    (5, 1, 'scheduled', '', '{}', '2026-01-02 00:00:05Z'),
    (5, 1, 'running', 'm', '{}', '2026-01-02 00:01:05Z'),
    (5, 1, 'stop_requested', '', '{}', '2026-01-02 00:02:05Z'),
    (5, 1, 'stopping', 'm', '{}', '2026-01-02 00:03:05Z'),
    (6, 1, 'scheduled', '', '{}', '2026-01-02 00:00:06Z'),
    (6, 1, 'stop_requested', '', '{}', '2026-01-02 00:01:06Z'),
    (6, 1, 'stopped', '', '{}', '2026-01-02 00:02:06Z'),
    (7, 1, 'scheduled', '', '{}', '2026-01-02 00:00:07Z'),
    (7, 1, 'running', 'm', '{}', '2026-01-02 00:01:07Z'),
    (7, 1, 'error', 'm', '{"cause": "planted", "retry_at": "2026-01-02T00:10:07Z"}', '2026-01-02 00:02:07Z'),
    (8, 1, 'scheduled', '', '{}', '2026-01-02 00:00:08Z'),
    (8, 1, 'running', 'm', '{}', '2026-01-02 00:01:08Z'),
    (8, 1, 'fatal', 'm', '{"cause": "planted"}', '2026-01-02 00:02:08Z'),
    (9, 1, 'scheduled', '', '{}', '2026-01-02 00:00:09Z'),
    (9, 1, 'running', 'm', '{}', '2026-01-02 00:01:09Z'),
    (9, 1, 'completed', 'm', '{}', '2026-01-02 00:02:09Z'),
    (9, 2, 'scheduled', '', '{}', '2026-01-02 00:03:09Z'),
    (9, 2, 'running', 'm', '{}', '2026-01-02 00:04:09Z'); -- and nothing of the tenth: its history is lost

INSERT INTO tallyman.job_status (job_id, status, epoch, worker, attempts, retry_at, detail, updated_at) VALUES
    (1, 'scheduled', 1, '', 0, NULL, '{}', '2026-01-02 00:00:01Z'),
    (2, 'running', 1, 'm', 0, NULL, '{}', '2026-01-02 00:01:02Z'),
    (3, 'completed', 1, 'm', 0, NULL, '{}', '2026-01-02 00:02:03Z'),
    (4, 'stop_requested', 1, '', 0, NULL, '{}', '2026-01-02 00:01:04Z'),
    (5, 'stopping', 1, 'm', 0, NULL, '{}', '2026-01-02 00:03:05Z'),
    (6, 'stopped', 1, '', 0, NULL, '{}', '2026-01-02 00:02:06Z'),
    (7, 'error', 1, 'm', 1, '2026-01-02 00:10:07Z', '{"cause": "planted", "retry_at": "2026-01-02T00:10:07Z"}', '2026-01-02 00:02:07Z'),
    (8, 'fatal', 1, 'm', 0, NULL, '{"cause": "planted"}', '2026-01-02 00:02:08Z'),
    (9, 'running', 2, 'm', 0, NULL, '{}', '2026-01-02 00:04:09Z'),
    (10, 'stopped', 1, 'm', 0, NULL, '{}', '2026-01-02 00:02:10Z');
