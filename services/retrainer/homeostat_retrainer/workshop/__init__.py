"""Worker processes that train and run models: limited, supervised, replaced when they die."""
