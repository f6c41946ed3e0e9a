-- Pages look for services in the rows of another index, a bounded number of them. By this one a page sorted all events of its
-- service, and each look at an event had to keep it up.
DROP INDEX events_by_service;
