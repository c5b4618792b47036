"""Marketing Cloud Engagement: tokens, REST and SOAP, data extensions, row jobs."""
